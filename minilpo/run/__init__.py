"""A run: a folder, and the steps that fill it.

    processes  several of them that work on one run
    forms      what its files must hold
    folder     what it holds, made, opened and believed
    steps      pretrain, train, evaluate

config.json, tokenizer.json          written first: the resolved settings
model.pt, pretrain_log.json          by `pretrain_step`
head.pt, lpo_log.json                by `train_step`, with constant_head.pt, a control, and with
                                     --train-lm trained_model.pt
metrics.json, examples.txt, figures/ by `evaluate_step`
report.html                          by the same: all of it on one page
timings.json                         seconds spent, the only file that differs between two runs of
                                     the same seed (`metrics.json` repeats it under "seconds",
                                     `report.html` in the paragraph "times")
*_state.pt                           half-done work, gone once a step is done

The log of a step is written last and names the files that the step read and wrote, with their
checksums: a step is done if its log is there and every file it names is as it was. Old results stay
until new ones take their place.
"""
