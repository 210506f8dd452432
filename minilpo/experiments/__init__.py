"""The paper's tables and figures in miniature, one file each, and four experiments of our own.

Each file asks a question, and has the paper's finding, the measurement, the table with its
concluding sentence, and the figure: `fig3` to `fig7`, `table1` to `table5`. Not in the paper are
`controls`, `rivals`, `pairs` and `think`. Around them:

    base         rows, sentence and table of a result
    figures      bars and lines with intervals over seeds
    lab          language model, heads and measurements that the experiments of a seed share
    methods      the rules and heads that `rivals` compares
    page         all of a reproduction on one page
    reproduce    runs experiments over seeds, and writes JSON, table and figure

`minilpo reproduce NAME` runs one, `minilpo reproduce all` all of them. To add one: a file here with
the four names that `base` lists, and its name in `EXPERIMENTS`.
"""

EXPERIMENTS = (
    *("fig3", "fig4", "fig5", "fig6", "fig7"),
    *("table1", "table3", "table4", "table5", "controls", "rivals", "pairs", "think"),
)
