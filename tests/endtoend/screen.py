"""What a terminal shows: as much of one as vibe's interfaces need to be read."""

from __future__ import annotations

import re

ROWS, COLUMNS = 40, 110
_PIECES = re.compile(
    r"""
    \x1b\[ (?P<given>[0-9;?<>=:]*) [ -/]* (?P<final>[@-~])   # moves and colours
    | \x1b[\]P_^X] .*? (?: \x07 | \x1b\\ )                   # titles and the like
    | \x1b[()*+#] . | \x1b(?P<short>[^\[\]P_^X()*+#])
    | (?P<text>[^\x00-\x1f\x7f]+)
    | (?P<control>[\x00-\x1a\x1c-\x1f\x7f])
    """,
    re.VERBOSE | re.DOTALL,
)


class Screen:
    """Feed it what a program writes; ask for its text."""

    def __init__(self) -> None:
        self._rest = ""
        self._row = self._column = 0
        self._cells = [[" "] * COLUMNS for _ in range(ROWS)]

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self._cells)

    def feed(self, data: str) -> None:
        data = self._rest + data
        end = 0
        for piece in _PIECES.finditer(data):
            if piece.start() != end:
                break
            end = piece.end()
            if piece["text"]:
                self._print(piece["text"])
            elif piece["control"]:
                self._control(piece["control"])
            elif piece["final"]:
                self._sequence(piece["final"], piece["given"])
            elif piece["short"] == "M":
                self._row = max(0, self._row - 1)
        # The end of a sequence may come later; a wrong one is dropped with its beginning.
        self._rest = data[end:] if len(data) - end < 4096 else ""

    def _print(self, text: str) -> None:
        for character in text:
            if self._column >= COLUMNS:
                self._column = 0
                self._line_feed()
            self._cells[self._row][self._column] = character
            self._column += 1

    def _control(self, control: str) -> None:
        match control:
            case "\r":
                self._column = 0
            case "\n":
                self._line_feed()
            case "\b":
                self._column = max(0, self._column - 1)
            case "\t":
                self._column = min(COLUMNS - 1, (self._column // 8 + 1) * 8)
            case _:
                pass

    def _line_feed(self) -> None:
        if self._row + 1 < ROWS:
            self._row += 1
        else:
            self._cells = [*self._cells[1:], [" "] * COLUMNS]

    def _sequence(self, final: str, given: str) -> None:  # noqa: C901, PLR0912 - a case each
        if given[:1] in {"?", "<", ">", "="}:
            if given in {"?1049", "?1047"}:
                self._erase(0, ROWS * COLUMNS)
            return
        numbers = [int(each) if each.isdigit() else 0 for each in given.split(";")]
        first = numbers[0] or 1
        here = self._row * COLUMNS + self._column
        match final:
            case "H" | "f":
                second = (numbers[1] if len(numbers) > 1 else 0) or 1
                self._row, self._column = first - 1, second - 1
            case "A" | "F":
                self._row -= first
            case "B" | "E":
                self._row += first
            case "C":
                self._column += first
            case "D":
                self._column -= first
            case "G":
                self._column = first - 1
            case "d":
                self._row = first - 1
            case "J":
                begin, end = (here, ROWS * COLUMNS) if numbers[0] == 0 else (0, here)
                self._erase(*((0, ROWS * COLUMNS) if numbers[0] >= 2 else (begin, end)))
            case "K":
                line = self._row * COLUMNS
                begin = here if numbers[0] == 0 else line
                self._erase(begin, here if numbers[0] == 1 else line + COLUMNS)
            case "X":
                self._erase(here, here + first)
            case _:
                pass
        self._row = min(max(self._row, 0), ROWS - 1)
        self._column = min(max(self._column, 0), COLUMNS)

    def _erase(self, begin: int, end: int) -> None:
        for cell in range(begin, min(end, ROWS * COLUMNS)):
            self._cells[cell // COLUMNS][cell % COLUMNS] = " "
