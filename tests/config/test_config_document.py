"""Files as trees: what expat in dbus-daemon sees, whatever lxml and libxml2 are like."""

from __future__ import annotations

from pathlib import Path

import pytest

from afdbus.config.document import Element, parse, read
from afdbus.errors import ConfigError

OUTSIDE = '<!DOCTYPE a PUBLIC "-//x" "http://nowhere.invalid/x.dtd" [%s]>'


def tree(text: str | bytes) -> Element:
    return parse(text if isinstance(text, bytes) else text.encode(), "f")


def text_of(body: str, declarations: str = "", head: str = "<!DOCTYPE a [%s]>") -> str:
    return tree(head.replace("%s", declarations) + f"<a>{body}</a>").text


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("secret")
    return str(path)


def test_a_tree() -> None:
    root = tree("<a x='1'>t<b/>u<!-- c --><c y='2'>\n<d/></c>v</a>")
    assert (root.name, root.attributes, root.text, root.line) == ("a", {"x": "1"}, "tuv", 1)
    assert [child.name for child in root.children] == ["b", "c"]
    assert root.children[1].children[0].line == 2


def test_an_element_is_where_it_begins() -> None:
    root = tree(
        "<!-- <no>\n -->\n<?no <no>\n?>\n<!DOCTYPE a [\n<!ATTLIST b x CDATA '>'>\n]>\n<a\n"
        " x='>'\n><![CDATA[<no>\n]]><b\n\ny='/>'/>\n<b></b\n><b\n>\n<c/></b></a>"
    )
    assert root.line == 8
    assert [child.line for child in root.children] == [11, 14, 15]
    assert root.children[2].children[0].line == 17


@pytest.mark.parametrize(
    "declaration",
    [
        "",
        '<?xml version="1.0" encoding="us-ascii"?>',
        '<?xml version="1.0" encoding="ISO-8859-1"?>',
        '<?xml version="1.0" encoding="UTF-16"?>',
        '<?xml version="1.0" encoding="no-such-encoding"?>',
        '<?xml version="1.1"?>',
        "<?xml version = '1.0'\nencoding = 'x' standalone='yes' ?>",
    ],
)
def test_s28_text_is_utf_8_whatever_is_declared(declaration: str) -> None:
    assert tree(f"{declaration}<a>é</a>").text == "é"
    with pytest.raises(ConfigError):
        tree(f"{declaration}<a>é</a>".encode("latin-1"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_s28_utf_16_is_seen(encoding: str) -> None:
    for declaration in ("", '<?xml version="1.0" encoding="utf-8"?>'):
        assert tree(f"{declaration}<a>é€</a>".encode(encoding)).text == "é€"
    if encoding == "utf-16-be":
        assert tree(b"\xfe\xff" + "<a>é</a>".encode(encoding)).text == "é"


def test_s28_lines_are_counted_all_the_same() -> None:
    head = (
        '<?xml\nversion="1.0"\n?>\n<!DOCTYPE a\nPUBLIC "x"\n"y" [\n<!ENTITY e SYSTEM\n"z">\n%e;\n]>'
    )
    assert tree(f"{head}\n<a/>").line == 11
    with pytest.raises(ConfigError) as caught:
        tree(f"{head}\n<a>\n&nope</a>")
    assert (caught.value.file, caught.value.line) == ("f", 12)
    with pytest.raises(ConfigError) as caught:
        tree(b"<a>\n\n\xff</a>")
    assert caught.value.line == 3


def test_s29_internal_entities_are_read() -> None:
    declared = '<!ENTITY e "x&f;"><!ENTITY f "y"><!ENTITY e "later ones do not count">'
    assert text_of("1&e;2", declared) == "1xy2"
    root = tree("<!DOCTYPE a [<!ENTITY e \"<b c='1'/>x\">]><a>1&e;2&e;</a>")
    assert root.text == "1x2x"
    assert [(child.name, child.attributes) for child in root.children] == [("b", {"c": "1"})] * 2


def test_s29_default_attributes_and_their_types() -> None:
    head = '<!DOCTYPE a [<!ATTLIST a b CDATA "d"><!ATTLIST a c NMTOKEN #IMPLIED>]>'
    assert tree(f'{head}<a c="  x "/>').attributes == {"b": "d", "c": "x"}


@pytest.mark.parametrize("where", ["", "file://"])
def test_s29_nothing_outside_is_read(secret: str, where: str) -> None:
    general = f'<!ENTITY e SYSTEM "{where}{secret}">'
    public = f'<!ENTITY e PUBLIC "x" "{where}{secret}">'
    parameter = f'<!ENTITY % p SYSTEM "{where}{secret}">%p;'
    assert text_of("1&e;2", general) == "12"
    assert text_of("1&e;2", public) == "12"
    assert text_of("1&e;2", general, OUTSIDE) == "12"
    assert text_of("12", parameter) == "12"
    subset = f'<!DOCTYPE a SYSTEM "{where}{secret}">'
    assert text_of("12", head=subset) == "12"
    inner = general + '<!ENTITY f "[&e;]">'
    assert text_of("1&f;2", inner) == "1[]2"


def test_s29_an_external_entity_in_an_attribute_is_an_error(secret: str) -> None:
    with pytest.raises(ConfigError):
        tree(f'<!DOCTYPE a [<!ENTITY e SYSTEM "{secret}">]><a b="&e;"/>')


def test_s29_undefined_entities() -> None:
    with pytest.raises(ConfigError):
        text_of("1&e;2")
    assert text_of("1&e;2", head=OUTSIDE) == "12"
    assert text_of("1&e;2", "%p;") == "12"
    assert tree(OUTSIDE.replace("%s", "") + '<a b="1&e;2"/>').attributes == {"b": "12"}
    with pytest.raises(ConfigError):
        text_of("1&e;2", head='<?xml version="1.0" standalone="yes"?>' + OUTSIDE)


def test_s29_a_parameter_entity_ends_the_reading_of_declarations() -> None:
    declared = "<!ENTITY e 'x'><!ENTITY % p \"<!ENTITY f 'y'>\">%p;<!ENTITY g 'z'>"
    assert text_of("[&e;&f;&g;]", declared) == "[x]"
    standalone = '<?xml version="1.0" standalone="yes"?><!DOCTYPE a [%s]>'
    assert text_of("[&e;&g;]", declared, standalone) == "[xz]"


def test_s29_amplification_is_refused() -> None:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    with pytest.raises(ConfigError):
        text_of("&l11;", f'<!ENTITY l0 "lol">{levels}')
    square = f'<!ENTITY big "{"x" * 50_000}">'
    with pytest.raises(ConfigError):
        text_of("&big;" * 20_000, square)
    with pytest.raises(ConfigError):
        text_of("&e;", '<!ENTITY e "&f;"><!ENTITY f "&e;">')


@pytest.mark.parametrize(
    "text",
    [
        '<a xmlns="x"/>',
        '<a xmlns:b="x"/>',
        '<a><b xmlns:c="x"/></a>',
        '<b:a xmlns:b="x"/>',
        "<!DOCTYPE a [<!ENTITY e \"<b &#120;mlns='x'/>\">]><a>&e;</a>",
        '<!DOCTYPE a [<!ATTLIST a xmlns CDATA "x">]><a/>',
        "<b:a/>",
        "<a b:c='1'/>",
    ],
)
def test_s30_there_are_no_namespaces(text: str) -> None:
    with pytest.raises(ConfigError):
        tree(text)


def test_s30_xml_lang_is_an_attribute() -> None:
    assert tree('<a xml:lang="x"/>').attributes == {"xml:lang": "x"}


@pytest.mark.parametrize("character", ["\0", "\f", "\ufffe", "\uffff", "&#0;", "&#xFFFE;"])
def test_s30_characters_that_xml_does_not_have(character: str) -> None:
    with pytest.raises(ConfigError):
        tree(f"<a>{character}</a>")


@pytest.mark.parametrize(
    "head",
    [
        "<!DOCTYPE",
        "<!DOCTYPE a [",
        "<!DOCTYPE a [<!ENTITY e SYSTEM>]>",
        "<!DOCTYPE a [<!ENTITY e SYSTEM 'x' 'y'>]>",
        "<!DOCTYPE a [<!ENTITY e PUBLIC 'x'>]>",
        "<!DOCTYPE a [x]>",
        "<!DOCTYPE a [<b/>]>",
        "<!DOCTYPE a PUBLIC 'x'>",
    ],
)
def test_a_malformed_head(head: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tree(f"\n{head}<a/>")
    assert caught.value.line == 2


def test_a_notation_may_look_like_markup() -> None:
    root = tree("<!DOCTYPE a [<!NOTATION n SYSTEM '<!--'>]>\n<a>\n<b/><!-- --></a>")
    assert [(child.name, child.line) for child in root.children] == [("b", 3)]


def test_read_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(str(tmp_path))
    assert "not a regular file" in str(caught.value)
    (tmp_path / "big").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ConfigError, match="too large"):
        read(str(tmp_path / "big"))
