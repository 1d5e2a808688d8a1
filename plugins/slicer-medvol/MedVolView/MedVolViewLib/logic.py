"""What a session in Slicer knows and does, without Slicer: an answer, its boxes as regions, its mask as a label map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import Region, draw_regions, height_at, put_on_slice, read_regions, slice_at
from .interface.anchors import Anchor, AnchorError, choose_to_move, settle
from .interface.answers import Answer, Scan, State
from .interface.client import Client, ClientError, ConflictError, Progress, Steps
from .interface.opening import Opened, Session, ask, look, open_answer, open_scan, save


class Bench:
    """One session of `medvol view`, and what of it is on the screen.

    Every method that takes long returns steps; ``Stepper`` does them a little at a time. What they find is kept
    here when they end.
    """

    def __init__(self) -> None:
        self.client: Client | None = None
        self.session: Session | None = None
        self.scan: Scan | None = None
        self.answer: Answer | None = None
        self.state: State | None = None

    def connect(self, address: str) -> Steps[Session]:
        """Work with another server.

        Raises:
            ClientError: The address is none, or nobody answers there.
        """
        client = Client(address)
        session = yield from look(client)
        self.client, self.session = client, session
        self.scan = self.answer = self.state = None
        return session

    def open_scan(self, scan_id: str) -> Steps[NDArray[Any]]:
        """Take a scan without an answer, and return its intensities (K, J, I)."""
        self.scan, voxels = yield from open_scan(self._connected, scan_id)
        self.answer = self.state = None
        return voxels

    def open(self, answer_id: str) -> Steps[Opened]:
        """Take an answer of the work list."""
        return self._keep((yield from open_answer(self._connected, answer_id, self._shown)))

    def ask(self, scan_id: str, query: str, policy: bool) -> Steps[Opened]:
        """Ask something new; without the policy, the reader draws the boxes."""
        if not query.strip():
            raise ClientError("the question is empty; type what you want to know about the scan")
        return self._keep((yield from ask(self._connected, scan_id, query.strip(), policy, self._shown)))

    def propagate(self, regions: Iterable[Region]) -> Steps[State]:
        """Make the mask of the boxes as they are on the screen."""
        anchor = self.read(regions)
        self.state = yield from self._connected.propagate(self._opened, anchor)
        return self.state

    def save(self, verdict: str, regions: Iterable[Region], remark: str) -> Steps[str]:
        """Keep a reading; returns the name of its record. See ``Client.save``."""
        anchor = self.read(regions)
        file, opened = yield from save(self._connected, self._opened, verdict, anchor, remark)
        self._keep(opened)
        return file

    def read(self, regions: Iterable[Region]) -> Anchor:
        """The anchor of regions.

        Raises:
            AnchorError: They make none.
            ClientError: No answer is open.
        """
        answer = self._opened
        known = [answer.original.anchor, answer.current.anchor]
        drawn = read_regions(regions, answer.scan, answer.several)
        return settle(drawn, known if self.state is None else [*known, self.state.anchor])

    def reset(self) -> None:
        """Go back to the answer as it was before anybody moved a box."""
        self.state = self._opened.original

    def regions(self) -> list[Region]:
        """The boxes of what is shown."""
        return [] if self.state is None else draw_regions(self.state.anchor, self._opened.scan)

    def new_region(self, point_ras: Iterable[float]) -> Region:
        """A region for a new box: a quarter of the slice, in its middle, on the slice of a point."""
        depth, height, width = self._opened.scan.shape
        box = (width * 3 / 8, height * 3 / 8, width * 5 / 8, height * 5 / 8)
        index = slice_at(point_ras, self._opened.scan)
        return draw_regions(Anchor(min(index, depth - 1), (box,)), self._opened.scan)[0]

    def put_on_slice(self, regions: Iterable[Region], point_ras: Iterable[float]) -> list[Region]:
        """Regions on the slice of a point; where they may lie on several slices, those of the nearest one go there."""
        scan, several, listed = self._opened.scan, self._opened.several, list(regions)
        index = slice_at(point_ras, scan)
        moving = choose_to_move([height_at(region.centre_ras, scan) for region in listed], index, several)
        return [put_on_slice(one, index, scan) if place in moving else one for place, one in enumerate(listed)]

    def labelmap(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The mask of what is shown as 0 and 1 (K, J, I), and its matrix from IJK to RAS."""
        if self.state is None:
            raise ClientError("no answer is open, so there is no mask; choose an answer, or ask a question")
        return self.state.mask.astype(np.uint8), self._opened.scan.affine_ras

    def key_point(self) -> NDArray[np.float64] | None:
        """Middle of the key slice in RAS millimetres; None for an answer without a box."""
        if self.state is None or self.state.anchor.key_slice is None:
            return None
        _, height, width = self._opened.scan.shape
        place = np.array([(width - 1) / 2, (height - 1) / 2, self.state.anchor.key_slice, 1.0])
        return (self._opened.scan.affine_ras @ place)[:3]

    def _keep(self, opened: Opened) -> Opened:
        self.session, self.answer, self.state = opened.session, opened.answer, opened.state
        self.scan = opened.answer.scan
        return opened

    @property
    def _shown(self) -> str:
        return "" if self.scan is None else self.scan.scan_id

    @property
    def _connected(self) -> Client:
        if self.client is None:
            raise ClientError("there is no session; start `medvol view`, paste the address that it prints, and connect")
        return self.client

    @property
    def _opened(self) -> Answer:
        if self.answer is None:
            raise ClientError("no answer is open; choose an answer, or ask a question")
        return self.answer


class Stepper:
    """Does steps one after another; whoever has a timer calls ``advance`` until nothing is left.

    Args:
        show: Hears how far it is; None when it has ended.
        complain: Hears what went wrong, in one sentence.
    """

    def __init__(self, show: Callable[[Progress | None], None], complain: Callable[[str], None]) -> None:
        self._show = show
        self._complain = complain
        self._steps: Steps[Any] | None = None
        self._then: Callable[[Any], None] = lambda result: None

    @property
    def working(self) -> bool:
        """Whether something is left to do."""
        return self._steps is not None

    def start(self, steps: Steps[Any], then: Callable[[Any], None]) -> None:
        """Take steps on; ``then`` gets their result when they end well."""
        if self.working:
            steps.close()
            self._complain("medvol is at work; wait for it, or cancel it")
            return
        self._steps, self._then = steps, then
        self._show(Progress("beginning"))

    def advance(self) -> bool:
        """Do one step; False when nothing is left."""
        if self._steps is None:
            return False
        try:
            self._show(next(self._steps))
            return True
        except StopIteration as end:
            self._end()
            self._then(end.value)
        except ConflictError as error:
            self._end()
            self._complain(f"{error} (open the answer again)")
        except (ClientError, AnchorError) as error:
            self._end()
            self._complain(str(error))
        return self.working

    def cancel(self) -> None:
        """Leave the rest undone; the server is told."""
        if self._steps is not None:
            self._steps.close()
            self._end()

    def _end(self) -> None:
        self._steps = None
        self._show(None)
