"""The language model.

model           the transformer
kv_cache        keys and values of the tokens it has read
tokenizer       text to token ids and back
pretraining     teaches it to imitate demonstrations
language_model  all of it as one thing, and the members that another one must have
"""
