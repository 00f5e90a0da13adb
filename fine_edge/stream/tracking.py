"""Track ids over the frames of a source: ByteTrack, as the library ``trackers`` has it."""

from __future__ import annotations

import numpy as np

from fine_edge.detections import Detections
from fine_edge.errors import MissingExtraError


class Tracks:
    """The tracks of one source.

    Args:
        frames_per_s: of the source; a lost track is remembered for a second.
        threshold: lowest score of a new track.

    Raises:
        MissingExtraError: when the library is not installed.
    """

    def __init__(self, frames_per_s: float, threshold: float) -> None:
        try:
            # Imported here: an extra that only --track needs.
            from supervision import Detections as Boxes
            from trackers import ByteTrackTracker
        except ModuleNotFoundError as error:
            raise MissingExtraError("trackers", "track") from error
        self._boxes = Boxes
        # What comes here scores at least the threshold already. By its own limit of 0.6 the library would take the
        # weaker ones only for tracks that are there.
        self._tracker = ByteTrackTracker(
            frame_rate=frames_per_s, track_activation_threshold=threshold, high_conf_det_threshold=threshold
        )
        self._seen: set[int] = set()

    def __len__(self) -> int:
        """Return how many tracks there were so far."""
        return len(self._seen)

    def update(self, found: Detections) -> list[int]:
        """Return the track of each detection of the next frame; -1 for none, as in the first frame of a track."""
        given = self._boxes(
            xyxy=np.asarray(found.boxes_xyxy_px, dtype=np.float64).reshape(-1, 4),
            confidence=np.asarray(found.scores, dtype=np.float64),
            class_id=np.asarray(found.labels, dtype=np.int64),
            # The library gives detections back in an order of its own; this says which is which.
            data={"place": np.arange(len(found))},
        )
        tracked = self._tracker.update(given)
        tracks = [-1] * len(found)
        numbers = () if tracked.tracker_id is None else tracked.tracker_id
        for place, track in zip(tracked.data.get("place", ()), numbers, strict=True):
            tracks[int(place)] = int(track)
        self._seen.update(track for track in tracks if track >= 0)
        return tracks
