#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn what_go_refuses_is_refused_in_its_words() {
    for (pattern, told) in [
        ("(", "missing closing ): `(`"),
        ("a(b", "missing closing ): `a(b`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("x[a-", "missing closing ]: `[a-`"),
        ("[]", "missing closing ]: `[]`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        (r"\pX", r"invalid character class range: `\pX`"),
        (r"\p{Klingon}", r"invalid character class range: `\p{Klingon}`"),
        (r"\p{L", r"invalid character class range: `\p{L`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("(+?)", "missing argument to repetition operator: `+?`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a*{2}", "invalid nested repetition operator: `*{2}`"),
        ("a???", "invalid nested repetition operator: `???`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("a{99999999999}", "invalid repeat count: `{99999999999}`"),
        ("(a{100}){11}", "invalid repeat count: `{11}`"),
        ("(?=x)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?!x)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?z)", "invalid or unsupported Perl syntax: `(?z`"),
        ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
        ("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("(?<=x)", "invalid named capture: `(?<=x)`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        ("(?P<a b>x)", "invalid named capture: `(?P<a b>`"),
        (r"\8", r"invalid escape sequence: `\8`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"[\q]", r"invalid escape sequence: `\q`"),
        (r"\xg0", r"invalid escape sequence: `\xg0`"),
        (r"\x{110000}", r"invalid escape sequence: `\x{110000}`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"a\", "trailing backslash at end of expression: ``"),
    ] {
        assert_eq!(
            translate(pattern).unwrap_err(),
            format!("error parsing regexp: {told}"),
            "{pattern}"
        );
    }
}

#[test]
fn what_go_accepts_means_the_same_here() {
    for (pattern, fits, misfits) in [
        ("^a{,2}$", "a{,2}", "aa"),
        ("^{$", "{", ""),
        ("^a{1$", "a{1", "a"),
        (r"^\d+$", "12", "\u{0663}"),
        (r"^\w+$", "a_1", "\u{e9}"),
        (r"^[\w-]+$", "a-1", "a b"),
        (r"^[^\d]$", "x", "1"),
        (r"^\D$", "x", "1"),
        (r"^\Qa.b\E$", "a.b", "axb"),
        ("^[a&&b]+$", "a&b", "c"),
        ("^[[a]+$", "[a", "b"),
        ("^[a-]+$", "a-", "b"),
        ("^[]a]+$", "]a", "b"),
        ("^[[:alpha:]-z]+$", "a-z", "1"),
        (r"^\101\x42\x{43}$", "ABC", "abc"),
        ("^(?P<n>a)(?P<n>b)$", "ab", "a"),
        ("^(?:a|b)+?$", "abab", "c"),
        ("(?i)^ab$", "AB", "ac"),
        ("^(?s:.)$", "\n", ""),
        ("^.$", "\u{e9}", "\n"),
        (r"^\pL\p{Greek}\P{Lu}$", "a\u{3b1}b", "1\u{3b1}b"),
        (r"^\bab\b$", "ab", "a b"),
        ("^[0-9]{3}-[a-z]{2,4}$", "123-abc", "123-a"),
        (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "a-b.c", "A"),
        ("^#? ~&-$", "# ~&-", "a"),
        ("x*", "", "never"),
        ("^(a|)*$", "aa", "b"),
        ("^\u{e9}+$", "\u{e9}\u{e9}", "e"),
    ] {
        let translated = translate(pattern).unwrap();
        let regex = regex::Regex::new(&translated)
            .unwrap_or_else(|why| panic!("{pattern}: {translated}: {why}"));
        assert!(regex.is_match(fits), "{pattern} ({translated}) and {fits:?}");
        if misfits != "never" {
            assert!(!regex.is_match(misfits), "{pattern} ({translated}) and {misfits:?}");
        }
    }
}
