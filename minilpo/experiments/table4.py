"""Table 4: the losses compared, on mathematics alone, at sequence level."""

import numpy as np

from minilpo.experiments.base import Finding, Numbers, Row, compared, direction, percent_at
from minilpo.experiments.figures import draw_bars
from minilpo.experiments.lab import Lab
from minilpo.show import plots

PAPER = (
    "mathematics, sequence level: "
    "Eq. 10 and Eq. 11 find greedy's 81.59%, the NLL baseline only 78.92%"
)
TASK = "math"
LOSSES = {"eq10": "Eq. 10", "eq11": "Eq. 11", "eq11_marginal": "Eq. 11, exact", "nll": "NLL"}
LPO = ("eq10", "eq11")  # the losses that the paper compares with the NLL
PAPERS = {"eq10": "81.59", "eq11": "81.59", "nll": "78.92"}  # all by greedy choice
PAPERS_FIXED = {0.0: "81.59", 0.6: "79.15", 1.0: "78.32"}


def measure(lab: Lab) -> Numbers:
    """Measures each loss: accuracy by greedy and by sampled choice, and the learned P(τ)."""
    test = lab.fixed("test", (TASK,))
    numbers: Numbers = {
        "temperatures": list(lab.config.temperatures),
        "fixed": test.fixed_rewards.mean(0).tolist(),
    }
    for loss in LOSSES:
        rule: Numbers = {"pairs": "nll"} if loss == "nll" else {"loss": loss}
        head = lab.head("sequence", (TASK,), **rule)
        rollout, greedy = lab.adaptive(head.greedy, test)
        _, sampled = lab.adaptive(head.sampled, test)
        numbers[loss] = {
            "greedy": float(greedy.mean()),
            "sampled": float(sampled.mean()),
            "probabilities": head.head(rollout.decisions.features).softmax(-1).mean(0).tolist(),
            "chosen_share": head.log[0]["chosen_share"][TASK],
        }
    return numbers


def conclude(found: Numbers) -> Finding:
    """Says how far the NLL is below LPO's losses, and whether these find t=0."""
    temperatures, fixed, nll = found["temperatures"][0], found["fixed"], found["nll"]
    rows = percent_at("fixed", temperatures, fixed, PAPERS_FIXED)
    for choice, papers in {"greedy": PAPERS, "sampled": {}}.items():
        for loss, name in LOSSES.items():
            right = 100 * found[loss][choice]
            rows.append(Row(f"{name}, {choice} choice (%)", right, papers.get(loss, "")))
    # Accuracies minus those of LPO's losses, in points, by the names of the losses.
    cold, minus = f"fixed t={temperatures[0]:g}", []
    for name, right, choice, paper in (
        ("NLL", nll["greedy"], "greedy", "-2.67"),
        ("NLL", nll["sampled"], "sampled", ""),
        (cold, fixed[:, 0], "greedy", ""),
    ):
        differences = {}
        for loss in LPO:
            label = f"{name} - {LOSSES[loss]}, {choice} choice (points)"
            differences[LOSSES[loss]] = Row(label, 100 * (right - found[loss][choice]), paper)
        minus.append(differences)
    by_greedy, by_sampled, by_cold = minus
    nll_is_below = all(row.sign() < 0 for row in by_greedy.values())
    agrees = nll_is_below and all(row.sign() <= 0 for row in by_cold.values())
    how = (
        f"by greedy choice the NLL is {_with_sizes(by_greedy)}, and {cold} is "
        f"{_with_sizes(by_cold)}; by sampled choice the NLL is {_with_sizes(by_sampled)}."
    )
    rows += [row for differences in minus for row in differences.values()]
    return Finding(rows, agrees, direction(agrees, how))


def _with_sizes(differences: dict[str, Row]) -> str:
    # The sizes in the order in which `compared` names them.
    rows = sorted(differences.values(), key=lambda row: (1, -1, 0).index(row.sign()))
    sizes = ", ".join(row.text(1) for row in rows)
    return f"{compared(differences)} ({sizes} points)"


def draw(found: Numbers) -> plots.Figure:
    """Draws each loss's accuracy, and its learned P(τ) beside the shares of chosen responses."""
    fig, [[left, right]] = plots.figure(1, 2, width=5)
    values = {}
    for choice in ("greedy", "sampled"):
        values[f"{choice} choice"] = np.column_stack([found[loss][choice] for loss in LOSSES])
    draw_bars(left, [*LOSSES.values()], values, (plots.BLUE, plots.GREY))
    best = 100 * found["fixed"].mean(0).max()
    left.axhline(best, color=plots.ORANGE, linestyle="--", label="best fixed temperature")
    left.tick_params("x", labelsize=10)
    left.set(ylabel="right answers (%)", ylim=(0, 130), title="What each loss reaches")
    plots.legend(left, loc="upper left", ncols=2)

    x, away = found["temperatures"][0], {}  # how far P(τ) is from what was chosen
    styles = {"eq10": ("o-", plots.BLUE), "eq11": ("s--", plots.GREEN), "nll": ("^-", plots.ORANGE)}
    for loss, (style, colour) in styles.items():
        learned, label = found[loss]["probabilities"], f"{LOSSES[loss]}: learned"
        right.plot(x, 100 * learned.mean(0), style, color=colour, label=label, markersize=4)
        away[loss] = np.abs(learned - found[loss]["chosen_share"]).sum(1)
    chosen = 100 * found["nll"]["chosen_share"].mean(0)
    right.plot(x, chosen, ":", color=plots.GREY, label="share among chosen responses")
    words = Row("", away["nll"] - away["eq10"]).told(
        "Eq. 10 copies what was chosen\nmore than the NLL does",
        "the NLL copies what was chosen\nmore than Eq. 10 does",
        "the NLL and Eq. 10 are about as far\nfrom what was chosen",
    )
    right.set(xlabel="temperature", ylabel="probability (%)", ylim=(0, None))
    right.set_title(f"Learned: {words}")
    plots.legend(right)
    return fig
