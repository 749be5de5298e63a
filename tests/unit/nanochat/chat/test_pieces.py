from __future__ import annotations

import pytest

from nanochat.chat.pieces import Piece, PieceStream, shown


def _pieces(tokenizer, tokens, stop=()):
    stream = PieceStream(tokenizer, stop)
    found = [piece for token in tokens for piece in stream.push(token)]
    return [*found, *stream.flush()], stream


@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("three", "two t"), "one "),
        ("ab" * 20 + "abc", ("abc",), "ab" * 20),
        ("almost en", ("end",), "almost en"),
        ("grün", ("ün",), "gr"),
    ],
)
def test_an_answer_ends_before_a_stop_string(tokenizer, text, stop, left):
    pieces, stream = _pieces(tokenizer, tokenizer.encode(text), stop)
    assert "".join(piece.text for piece in pieces) == left
    assert stream.stopped == (left != text)


def test_a_use_of_the_calculator_has_pieces_of_its_own(tokenizer):
    parts = (("python", "3+4"), ("output", "7"))
    called = [
        token
        for name, text in parts
        for token in (
            tokenizer.special(f"{name}_start"),
            *tokenizer.encode(text),
            tokenizer.special(f"{name}_end"),
        )
    ]
    pieces, _ = _pieces(
        tokenizer, [*tokenizer.encode("It is "), *called, *tokenizer.encode("7.")], ("3+", "9")
    )
    assert [piece.text for piece in pieces if piece.first] == ["3", "7"]
    assert Piece("expression", "3", first=True) in pieces
    assert shown(pieces) == "It is [3+4 = 7] 7."


@pytest.mark.parametrize(
    "between", [["python_start", "python_end"], ["python_end"], ["output_start", "output_end", "output_end"]]
)
def test_special_tokens_with_nothing_between_do_not_part_a_text(tokenizer, between):
    def around(before, after):
        return [*before, *map(tokenizer.special, between), *after]

    pieces, _ = _pieces(tokenizer, around(b"\xe6\x97", b"\xa5."))
    assert pieces == [Piece("text", "日"), Piece("text", ".")]
    pieces, stream = _pieces(tokenizer, around(b"the e", b"nd."), ("end",))
    assert (shown(pieces), stream.stopped) == ("the ", True)


def test_a_stop_string_does_not_span_a_use_of_the_calculator(tokenizer):
    use = [tokenizer.special("python_start"), ord("3"), tokenizer.special("python_end")]
    pieces, stream = _pieces(tokenizer, [*b"the e", *use, *b"nd."], ("end",))
    assert (shown(pieces), stream.stopped) == ("the e[3nd.", False)
    assert Piece("expression", "3", first=True) in pieces


def test_each_token_of_a_text_is_known_by_where_it_begins(tokenizer):
    use = [tokenizer.special("python_start"), ord("3"), tokenizer.special("python_end")]
    tokens = [*b"a\xe6", *use, *"日e".encode(), *b"\xe6\x97z\xff.", *b"end!"]
    stream, found, text = PieceStream(tokenizer, ("end?",)), [], ""
    for token in tokens:
        text += "".join(piece.text for piece in stream.push(token) if piece.kind == "text")
        found.append(stream.offset)
    assert text == "a\ufffd日e\ufffdz\ufffd.end!"
    assert found == [0, 1, None, None, None, 2, 2, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11]
