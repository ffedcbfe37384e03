"""Links: bounded and in order, whatever is pushed, taken and put back; and those that forget instead of waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from running import run

from hotplumb._links import END, Inbox, Link, Marker, only
from hotplumb.items import Chunk, Root
from hotplumb.nodes import Overflow

OVERFLOWS: tuple[Overflow, ...] = ("drop_oldest", "drop_newest", "latest")


class Writing:
    """The end that puts in, alone."""

    def __init__(self) -> None:
        self.full_links = 0
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


class Reading:
    """The end that takes out, alone."""

    def __init__(self) -> None:
        self.dropped = 0
        self.offered = 0

    def offer(self, link: Link) -> None:
        assert link.entries
        self.offered += 1

    def offer_behind(self, link: Link) -> None:
        self.offer(link)


class Ends:
    """A link with nothing at its ends but what counts their calls."""

    def __init__(self, capacity: int = 4, when_full: Overflow = "wait") -> None:
        self.writer, self.reader = Writing(), Reading()
        self.link = Link("s", self.writer, self.reader, capacity, when_full=when_full)
        self.next = 0

    def push(self, size: int) -> list[int]:
        """Push a chunk of new numbers."""
        values = [*range(self.next, self.next + size)]
        self.link.push(Chunk(values, Root("s", self.next)))
        self.next += size
        return values

    def all(self) -> list[Any]:
        """What is in the link: values and markers."""
        return [what for entry in self.link.entries for what in (entry.values if isinstance(entry, Chunk) else [entry])]


def numbers(chunk: Chunk) -> list[int]:
    """The numbers that the trails of its values show."""
    root = chunk.record
    assert isinstance(root, Root)
    return [root.number + chunk.start + i for i in range(len(chunk))]


@settings_of(max_examples=60, stateful_step_count=30)
class LinkMachine(RuleBasedStateMachine):
    """A link beside a plain list of what has to be in it."""

    when_full: Overflow = "wait"

    def __init__(self) -> None:
        super().__init__()
        self.ends = Ends(3, self.when_full)
        self.link = self.ends.link
        self.model: list[Any] = []
        self.in_hand: list[Chunk] = []  # one at most
        self.begun = 0  # values of it
        self.offers = 0
        self.wakes = 0

    def was(self) -> tuple[bool, bool]:
        return not self.model, self.link.is_full

    def note(self, was: tuple[bool, bool]) -> None:
        """Count the calls that there should have been."""
        was_empty, was_full = was
        self.offers += was_empty and bool(self.model)
        self.wakes += was_full and not self.link.is_full

    @precondition(lambda self: not self.link.is_full)
    @rule(size=st.integers(1, 3))
    def push(self, size: int) -> None:
        was = self.was()
        self.model.extend(self.ends.push(size))
        self.forget()
        self.note(was)

    def forget(self) -> None:
        """A waiting link forgets nothing."""

    @rule()
    def mark(self) -> None:
        was = self.was()
        self.model.append(END)
        self.link.mark(END)
        self.note(was)

    @precondition(lambda self: self.model and not self.in_hand)
    @rule(most=st.integers(1, 4))
    def take_and_count_what_is_not_begun(self, most: int) -> None:
        """As a node does whose calls are awaited: its writer may push meanwhile."""
        was = self.was()
        taken = self.link.take(most)
        if isinstance(taken, Marker):
            assert [taken] == self.model[:1]
            del self.model[0]
        else:
            assert 1 <= len(taken) <= most
            assert taken.values == self.model[: len(taken)] == numbers(taken)
            del self.model[: len(taken)]
            self.in_hand.append(taken)
            self.begun = 1
            self.link.count_in(len(taken) - 1)
        self.note(was)

    @precondition(lambda self: self.in_hand and self.begun < len(self.in_hand[0]))
    @rule()
    def begin_the_next(self) -> None:
        was = self.was()
        self.link.count_out(1)
        self.begun += 1
        self.note(was)

    @precondition(lambda self: self.in_hand)
    @rule(has_failed=st.booleans())
    def return_the_rest(self, has_failed: bool) -> None:
        """What is not begun, and before it the one that has failed."""
        was, chunk = self.was(), self.in_hand.pop()
        self.link.count_out(len(chunk) - self.begun)
        rest = only(chunk, self.begun - has_failed, len(chunk))
        if rest.values:
            self.model[:0] = rest.values
            self.link.put_back(rest)
        self.note(was)

    @invariant()
    def holds_what_it_should(self) -> None:
        assert self.ends.all() == self.model
        assert self.link.queued == len(values_of(self.model)) + self.counted_in_hand()

    def counted_in_hand(self) -> int:
        """What is not begun counts as waiting, so that the writer does not take its room."""
        return sum(len(chunk) - self.begun for chunk in self.in_hand)

    @invariant()
    def is_bounded(self) -> None:
        assert self.link.queued <= 2 * self.link.capacity

    @invariant()
    def its_writer_waits_while_it_is_full(self) -> None:
        assert self.link.is_full == (self.link.queued >= self.link.capacity)
        assert self.ends.writer.full_links == self.link.is_full

    @invariant()
    def its_ends_are_told(self) -> None:
        assert self.ends.reader.offered == self.offers
        assert self.ends.writer.woken >= self.wakes
        assert self.ends.reader.dropped == 0


TestWaiting = LinkMachine.TestCase


class ForgettingMachine(LinkMachine):
    """A link that forgets; nothing of it makes its writer wait."""

    when_full: Overflow = "drop_oldest"

    def __init__(self) -> None:
        super().__init__()
        self.most = 1 if self.when_full == "latest" else self.link.capacity
        self.dropped = 0

    def forget(self) -> None:
        """What is too much goes from one end, however much is in hand."""
        was, kept = values_of(self.model), values_of(self.ends.all())
        self.check_kept(was, kept)
        self.dropped += len(was) - len(kept)
        self.model = [each for each in self.model if each is END or each in kept]

    def check_kept(self, was: list[int], kept: list[int]) -> None:
        assert kept == was[len(was) - len(kept) :]
        assert len(kept) == min(len(was), self.most)

    def counted_in_hand(self) -> int:
        """Nobody waits for its room."""
        return 0

    @invariant()
    def its_writer_waits_while_it_is_full(self) -> None:
        assert not self.link.is_full
        assert self.ends.writer.full_links == 0

    @invariant()
    def its_ends_are_told(self) -> None:
        assert self.ends.reader.dropped == self.dropped
        assert self.ends.reader.offered == self.offers


def values_of(entries: list[Any]) -> list[int]:
    return [each for each in entries if each is not END]


class NewestMachine(ForgettingMachine):
    when_full: Overflow = "drop_newest"
    pushed = 0

    def check_kept(self, was: list[int], kept: list[int]) -> None:
        before = sum(number < self.pushed for number in was)  # perhaps more than the capacity: something has come back
        self.pushed = self.ends.next
        assert kept == was[: len(kept)]
        assert len(kept) == max(before, min(len(was), self.most))


class LatestMachine(ForgettingMachine):
    when_full: Overflow = "latest"


TestForgettingTheOldest = ForgettingMachine.TestCase
TestForgettingTheNewest = NewestMachine.TestCase
TestKeepingTheLatest = LatestMachine.TestCase


@given(st.sampled_from(OVERFLOWS), st.integers(1, 5), st.lists(st.integers(1, 9), max_size=8))
def test_what_a_forgetting_link_keeps_and_counts_is_what_was_pushed(
    when_full: Overflow, capacity: int, sizes: list[int]
) -> None:
    """The newest or the oldest, in order, and nothing is gone uncounted."""
    ends = Ends(capacity, when_full)
    pushed = [value for size in sizes for value in ends.push(size)]
    most = 1 if when_full == "latest" else capacity
    kept = ends.all()
    assert kept == (pushed[:most] if when_full == "drop_newest" else pushed[-most:])
    assert ends.reader.dropped == len(pushed) - len(kept)
    assert [number for entry in ends.link.entries if isinstance(entry, Chunk) for number in numbers(entry)] == kept


@pytest.mark.parametrize("when_full", OVERFLOWS)
def test_a_forgetting_link_keeps_its_markers(when_full: Overflow) -> None:
    """An end is never forgotten, and stays behind what came before it."""
    ends = Ends(2, when_full)
    ends.push(2)
    ends.link.mark(END)
    ends.push(5)
    kept = ends.all()
    assert END in kept
    assert all(value < 2 for value in kept[: kept.index(END)])
    assert all(value >= 2 for value in kept[kept.index(END) + 1 :])


def test_a_link_holds_a_chunk_more_than_its_capacity_at_most() -> None:
    """What makes it full may go over it."""
    ends = Ends(4)
    ends.push(3)
    assert not ends.link.is_full
    ends.push(4)
    assert ends.link.is_full
    assert ends.link.queued == 7


def test_room_counts_items_that_may_come_back() -> None:
    """A writer does not take the room of what is in hand and not begun."""
    ends = Ends(4)
    ends.push(4)
    taken = ends.link.take(4)
    assert isinstance(taken, Chunk)
    assert not ends.link.is_full
    ends.link.count_in(4)
    assert ends.link.is_full
    ends.link.count_out(1)
    assert not ends.link.is_full
    assert (ends.link.queued, ends.writer.full_links) == (3, 0)


def test_markers_need_no_room() -> None:
    """A full link takes them, and is no fuller for it."""
    ends = Ends(1)
    ends.push(1)
    for _ in range(5):
        ends.link.mark(END)
    assert ends.link.queued == 1
    assert ends.all() == [0, *[END] * 5]


def test_closing_a_link_forgets_what_is_in_it_and_lets_its_writer_go() -> None:
    """It says how many items that were."""
    ends = Ends(2)
    ends.push(2)
    ends.link.mark(END)
    assert ends.link.close() == 2
    assert ends.link.is_closed
    assert ends.all() == []
    assert (ends.writer.full_links, ends.writer.woken) == (0, 1)
    assert Ends().link.close() == 0


def test_what_is_in_hand_of_a_closed_link_counts_no_more() -> None:
    """It was forgotten with the rest."""
    ends = Ends(4)
    ends.push(4)
    ends.link.take(4)
    ends.link.count_in(3)
    assert ends.link.close() == 3
    ends.link.count_out(3)
    assert (ends.link.queued, ends.writer.full_links) == (0, 0)


def test_a_writer_is_woken_when_all_its_links_have_room() -> None:
    """Not before the last of them has."""
    writer = Writing()
    links = [Link("s", writer, Reading(), 1) for _ in range(3)]
    for link in links:
        link.push(Chunk([1], Root("s", 0)))
    assert writer.full_links == 3
    for i, link in enumerate(links):
        assert writer.woken == 0, i
        link.take(1)
    assert writer.woken == 1


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_part_of_a_chunk_knows_where_its_values_came_from(size: int, start: int, stop: int) -> None:
    """However it is cut."""
    chunk = Chunk([*range(100, 100 + size)], Root("s", 95), 5)
    part = only(chunk, start, stop)
    assert part.values == chunk.values[start:stop]
    assert numbers(part)[: len(part)] == part.values


# --- from outside


def test_an_inbox_lets_all_who_wait_look_again_when_there_is_room(seed: int) -> None:
    """In order, those who are gone left out."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        inbox = Inbox()
        inbox.link = Link("x", inbox, Reading(), 2)
        inbox.push(Chunk([1], Root("x", 0)))
        assert not inbox.is_full
        inbox.push(Chunk([2], Root("x", 1)))
        assert inbox.is_full
        waiters = [inbox.waiter(loop) for _ in range(3)]
        waiters[1].cancel()
        inbox.link.take(1)
        assert not inbox.is_full
        assert [waiter.done() for waiter in waiters] == [True] * 3
        assert [waiter.cancelled() for waiter in waiters] == [False, True, False]

    run(main, seed)


def test_a_full_inbox_holds_up_nodes_until_there_is_room() -> None:
    """A node that is there twice waits until both are gone."""
    inbox, node = Inbox(), Writing()
    inbox.link = Link("x", inbox, Reading(), 1)
    inbox.push(Chunk([1], Root("x", 0)))
    node.full_links = 3  # two for the inbox, one elsewhere
    inbox.blocked = [node, node]
    inbox.link.take(1)
    assert (node.full_links, node.woken, inbox.blocked) == (1, 0, [])


def test_a_closed_link_takes_no_marker() -> None:
    """Its reader has finished, and would count an end that it does not wait for."""
    ends = Ends()
    ends.link.close()
    ends.link.mark(END)
    assert (len(ends.link.entries), ends.reader.offered) == (0, 0)
