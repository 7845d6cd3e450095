//! Rust sources as tokens, so that comments and strings are not taken for code, and what stands in a
//! macro is seen like the rest.

use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::files;

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of the word `fn`.
    pub(crate) line: usize,
    /// From there to the closing brace, both counted.
    pub(crate) len_lines: usize,
}

/// The tokens of a file.
pub(crate) fn of(file: &Path) -> TokenStream {
    let text = files::text(file).expect("Rust sources are UTF-8");
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Functions at any depth.
pub(crate) fn functions(tokens: TokenStream) -> Vec<Function> {
    let mut found = Vec::new();
    collect(tokens, &mut found);
    found
}

fn collect(tokens: TokenStream, found: &mut Vec<Function>) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, tree) in trees.iter().enumerate() {
        if let TokenTree::Group(group) = tree {
            collect(group.stream(), found);
        }
        // A name tells a function from the type of a function pointer.
        if let [TokenTree::Ident(word), TokenTree::Ident(name), rest @ ..] = &trees[at..]
            && word == "fn"
            && let Some(end) = end_of_body(rest)
        {
            let line = word.span().start().line;
            let len_lines = end - line + 1;
            found.push(Function { name: name.to_string(), line, len_lines });
        }
    }
}

/// Line of the brace that closes the body; `None` for a declaration without one.
fn end_of_body(signature: &[TokenTree]) -> Option<usize> {
    signature.iter().find_map(|tree| match tree {
        TokenTree::Punct(punct) if punct.as_char() == ';' => Some(None),
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
            Some(Some(group.span_close().end().line))
        }
        _ => None,
    })?
}

/// Every token in order as text with its line; groups become their delimiters and what is inside.
pub(crate) fn flat(tokens: TokenStream) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    flatten(tokens, &mut found);
    found
}

fn flatten(tokens: TokenStream, found: &mut Vec<(String, usize)>) {
    for tree in tokens {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                found.push((open.to_owned(), group.span_open().start().line));
                flatten(group.stream(), found);
                found.push((close.to_owned(), group.span_close().start().line));
            }
            other => found.push((other.to_string(), other.span().start().line)),
        }
    }
}

/// Lines on which the words stand in this order as tokens, nothing between them.
pub(crate) fn lines_with(tokens: &[(String, usize)], words: &[&str]) -> Vec<usize> {
    let matches = |window: &&[(String, usize)]| {
        window.iter().zip(words).all(|((token, _), word)| token == word)
    };
    tokens.windows(words.len()).filter(matches).map(|window| window[0].1).collect()
}

#[test]
fn functions_are_measured_in_macros_and_without_bodies() {
    let source =
        "trait T { fn none(&self); fn some() {\n\n} }\nlaws! { fn inside(f: fn(u8) -> u8) {\n} }";
    let found = functions(source.parse().expect("tokens"));
    let of = |name: &str, line, len_lines| Function { name: name.into(), line, len_lines };
    assert_eq!(found, [of("some", 1, 3), of("inside", 4, 2)]);
}

#[test]
fn words_in_comments_and_strings_are_not_tokens() {
    let source = "// a!()\nlet text = \"a!()\";\na !(());";
    let tokens = flat(source.parse().expect("tokens"));
    assert_eq!(lines_with(&tokens, &["a", "!"]), [3]);
}
