"""minilpo: a tiny language model learns which temperature to use, and when.

The package is read floor by floor; a file imports only from the floors below it.

    floor 0   config, losses, sampling, seeds, files, tasks/, plots, strip, statistics
    floor 1   tokenizer, model, adaptive_decoder
    floor 2   rollout
    floor 3   preferences, word_scores
    floor 4   pretraining, lpo, evaluation
    floor 5   report
    floor 6   run
    floor 7   experiments/
    floor 8   cli

The modules are the public API: `from minilpo.losses import preference_loss`, `from minilpo.tasks import load_tasks`. Importing
`minilpo` alone imports nothing heavy.

Source of the method: Dhuliawala et al., "Adaptive Decoding via Latent Preference Optimization", arXiv 2411.09661.
"""

__version__ = "0.1.0"
