"""minilpo: a tiny language model learns which temperature to use, and when.

The package is read floor by floor; a file imports only from the floors below it.

    floor 0   text, signals, config, losses, sampling, seeds, plots, statistics
    floor 1   files, tasks/, strip, threads
    floor 2   tokenizer, model, adaptive_decoder, progress
    floor 3   rollout
    floor 4   preferences, word_scores
    floor 5   pretraining, lpo, evaluation
    floor 6   report
    floor 7   run
    floor 8   experiments/
    floor 9   cli

The modules are the public API: `from minilpo.losses import preference_loss`, `from minilpo.tasks import load_tasks`. Importing
`minilpo` alone imports nothing heavy.

Source of the method: Dhuliawala et al., "Adaptive Decoding via Latent Preference Optimization", arXiv 2411.09661.
"""

__version__ = "0.1.0"
