import threading

from fine_edge.stream.channel import Channel


def test_a_live_sender_loses_its_oldest_and_counts():
    channel = Channel([True], 2)
    assert all(channel.send(item) for item in range(5))
    assert channel.receive(9) == [3, 4]
    assert channel.dropped == [3]


def test_a_file_waits_for_its_reader_and_loses_nothing():
    channel, got = Channel([False], 2), []
    thread = threading.Thread(target=lambda: ([channel.send(item) for item in range(50)], channel.finish()))
    thread.start()
    while taken := channel.receive(3):
        got += taken
    thread.join()
    assert got == list(range(50))
    assert channel.dropped == [0]
    assert channel.is_done


def test_senders_take_turns():
    channel = Channel([False, False], 4)
    for item in range(3):
        channel.send(("a", item), 0)
        channel.send(("b", item), 1)
    assert channel.receive(4) == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    channel.finish(0)
    assert channel.receive(4) == [("a", 2), ("b", 2)]
    assert not channel.is_done
    channel.finish(1)
    assert channel.receive() == []


def test_waiting_ends_with_the_time_or_when_all_is_abandoned():
    channel = Channel([False], 1)
    assert channel.receive(timeout_s=0.01) == []
    channel.send(1)
    results = []
    thread = threading.Thread(target=lambda: results.append(channel.send(2)))
    thread.start()
    channel.abandon()
    thread.join()
    assert results == [False]
    assert channel.receive() == []
