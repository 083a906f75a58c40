"""How long answers are that nobody bounds: a moving average by subject and model, of such as were counted."""

from __future__ import annotations

from collections import OrderedDict

FIRST_GUESS = 1000
WEIGHT = 0.1
REMEMBERED = 10_000

Habit = tuple[str, str | None]


class Usual:
    def __init__(self) -> None:
        self._means: OrderedDict[Habit, float] = OrderedDict()

    def tokens(self, habit: Habit) -> int:
        return round(self._means.get(habit, FIRST_GUESS))

    def learn(self, habit: Habit, tokens: int) -> None:
        mean = self._means.pop(habit, None)
        self._means[habit] = tokens if mean is None else mean + WEIGHT * (tokens - mean)
        if len(self._means) > REMEMBERED:
            self._means.popitem(last=False)
