import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.command import Terminated
from fine_edge.errors import DataError
from fine_edge.stream.pipeline import Distribution, Tally, require_frames


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=40), st.sampled_from([50, 90, 99]))
def test_percentiles_are_those_of_the_times_to_one_per_cent(times, percent):
    found = Distribution()
    for ms in times:
        found.add(ms)
    assert found.percentile(percent) == pytest.approx(np.percentile(times, percent, method="inverted_cdf"), rel=0.011)


def test_of_nothing_there_is_no_time_and_no_time_is_too_short_or_too_long():
    found = Distribution()
    assert found.percentile(50) is None
    found.add(0.0, 2)
    found.add(1e12)
    assert len(found) == 3
    assert found.percentile(50) == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize(
    ("end", "error"), [(KeyboardInterrupt(), KeyboardInterrupt), (Terminated(15), Terminated), (None, DataError)]
)
def test_a_stream_of_no_frame_ends_as_what_ended_it(end, error):
    with pytest.raises(error):
        require_frames(Tally([0, 0], end=end))
    require_frames(Tally([0, 1], end=end))
