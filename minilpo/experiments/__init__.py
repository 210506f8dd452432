"""The paper's tables and figures in miniature, one file each, and their reproduction.

    base         rows, sentence and table of a result
    figures      bars and lines with intervals over seeds
    lab          language model, heads and measurements that the experiments of a seed share
    fig3         the head against every fixed temperature, both levels (also Tables 6 to 11)
    fig4         which temperature for which task (also Table 2)
    fig5         constrained stories: cold where the rule binds (also Table 12)
    fig6         the temperature strip
    fig7         which temperatures wrote chosen and rejected responses
    table1       fewer repeats on free continuations
    table3       the majority of 8 answers
    table4       the losses compared
    table5       greedy and sampled choice of the temperature
    controls     (not in the paper) tasks on which nothing can be gained
    rivals       (not in the paper) the head against other papers' rules, with equal budgets
    methods      the rules and heads that it compares
    pairs        (not in the paper) theory and training: which pairs are formed, of how many samples
    think        (not in the paper) another latent: whether to think or to answer at once
    page         all of a reproduction on one page
    reproduce    runs them over seeds, and writes JSON, table and figure

`minilpo reproduce NAME` runs one, `minilpo reproduce all` all of them. To add one: a file here with
the four names that `base` lists, and its name in `EXPERIMENTS`.
"""

EXPERIMENTS = (
    *("fig3", "fig4", "fig5", "fig6", "fig7"),
    *("table1", "table3", "table4", "table5", "controls", "rivals", "pairs", "think"),
)
