"""The language model.

model           the transformer
kv_cache        what it has read, kept for the next token
tokenizer       text to token ids and back
pretraining     teaches it to imitate demonstrations
language_model  all of it as one thing, and the members that another one must have
"""
