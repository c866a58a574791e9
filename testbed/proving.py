"""What proves that a scenario can fail: it passes by itself, and fails with each of its saboteurs."""

from __future__ import annotations

from collections.abc import Callable

from testbed.measure.records import Judgement, Outcome
from testbed.scenario import Scenario, parse
from testbed.tally import Ended

RUNS = 3
_CAUGHT: dict[Outcome, Outcome] = {"fail": "pass", "pass": "fail"}  # any other end of a saboteur's run is its own


def prove(
    scenario: Scenario,
    text: str,
    file: str,
    run: Callable[[str, Scenario], Judgement],
    tell: Callable[[str], None],
) -> tuple[list[Ended], str]:
    """The file by itself and then each saboteur, and a note where the file's own end leaves these untried.

    `run(what, scenario)` runs one of them; `tell` gets a line for each. `pass` means that the file passed, and of
    a saboteur that the run failed, as it must. A run that fails without any saboteur would fail with each of them,
    which shows nothing. So does one that this machine was too late for: that one is run again, RUNS times at most.
    """
    name = file.removesuffix(".yaml")

    def proven(what: str, outcome: Outcome, judged: Judgement) -> Ended:
        tell(f"{outcome}  {name} {what}: the run ended as {judged.outcome}: {judged.reason}")
        return Ended(f"{name} {what}", outcome, judged.reason)

    def decided(what: str, one: Scenario) -> Judgement:
        for again in range(1, RUNS):
            judged = run(what, one)
            if judged.outcome in _CAUGHT or not judged.too_late:
                return judged
            tell(f"again, {again} of {RUNS - 1}: {name} {what}: this machine was late: {judged.reason}")
        return run(what, one)

    plain = decided("by itself", scenario)
    ended = [proven("by itself", plain.outcome, plain)]
    if plain.outcome != "pass":
        number = len(scenario.fails_when)
        saboteurs = "its saboteur was" if number == 1 else f"its {number} saboteurs were"
        return ended, f"{name} does not pass by itself: {saboteurs} not tried"
    for saboteur, patch in scenario.fails_when.items():
        judged = decided(f"when {saboteur}", parse(text, file, patch))
        ended.append(proven(f"when {saboteur}", _CAUGHT.get(judged.outcome, judged.outcome), judged))
    return ended, ""
