"""Text from outside, made fit to be shown."""


def printable(text: str) -> str:
    """Strip control characters: text from outside must not steer a terminal."""
    return "".join(character for character in text if character.isprintable())
