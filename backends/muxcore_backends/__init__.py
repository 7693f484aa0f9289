"""The built-in backends: one module for each wire dialect, all of them pure codecs.

`generic` is OpenAI's chat completions, `mistral` what Mistral makes of it; `streaming`
decodes their streams, and `shapes` brings what they send into one shape. `failures`
classifies a refusal, `hints` reads how long it lasts, and `complaints` its message.
"""
