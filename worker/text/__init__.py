"""Text and tokens: tokenizer, chat templates, detokenizer, grammars."""
