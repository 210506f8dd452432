"""A run: a folder, and the steps that fill it.

    workers    other processes that write responses too
    processes  several of torchrun's that work on one run
    folder     the folder: settings, record, files
    begin      makes the folder: tokenizer and corpus
    steps      pretrain, train, evaluate

record.json                          a record per finished step: its settings, the SHA-256 of its
                                     files; and the seconds spent
config.json, tokenizer.json          written first: the resolved settings
model.pt, pretrain_log.json          by `pretrain_step`
head.pt, lpo_log.json                by `train_step`, with constant_head.pt, a control, and with
                                     --train-lm trained_model.pt
metrics.json, examples.txt, figures/ by `evaluate_step`
report.html                          by the same: all of it on one page
*_state.pt                           half-done work, gone once a step is done

All files of a step and its record come into force together: see `machine.files.Record.commit`. Old
results stay until new ones take their place. Two runs of the same seed differ in the seconds alone
(record.json, "seconds" in `metrics.json`, the paragraph "times" of `report.html`).
"""
