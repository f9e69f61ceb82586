//! Rust source split into tokens and comments: as much of the language as the rules of this test read. In: the text of a file. Out: words,
//! strings and signs with their lines, and comments apart from them. Next: `source`.

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier, a keyword or a number.
    Word,
    /// A string or character literal; its text is the content between the quotes.
    Literal,
    /// A single sign, or `::`.
    Sign,
}

/// A piece of code.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// The line on which the token begins, from 1.
    pub(crate) line: usize,
    /// The line on which the token ends; a string may be long.
    pub(crate) last_line: usize,
}

impl Token {
    /// True if the token is this word or sign, and not a literal of the same text.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.kind != Kind::Literal && self.text == text
    }
}

/// A line of comment, without its slashes.
#[derive(Clone, Debug)]
pub(crate) struct Comment {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Splits a source into its tokens and its comments.
pub(crate) fn split(source: &str) -> (Vec<Token>, Vec<Comment>) {
    let mut reader = Reader { rest: source, line: 1, tokens: Vec::new(), comments: Vec::new() };
    while !reader.rest.is_empty() {
        reader.step();
    }
    (reader.tokens, reader.comments)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    comments: Vec<Comment>,
}

impl Reader<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        let first = rest.chars().next().unwrap_or_default();
        if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            let text = rest[2..end].trim_start_matches(['/', '!']).trim().to_owned();
            self.comments.push(Comment { line: self.line, text });
            self.skip(end);
        } else if rest.starts_with("/*") {
            self.block_comment();
        } else if let Some((quote, hashes)) = string_start(rest) {
            self.string(quote, hashes);
        } else if let Some(length) = character(rest) {
            self.push(Kind::Literal, length);
        } else if first == '\'' {
            // A lifetime, whose name follows as a word.
            self.skip(1);
        } else if is_word(first) {
            let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
            self.push(Kind::Word, end);
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            self.push(Kind::Sign, length);
        }
    }

    fn block_comment(&mut self) {
        let (mut depth, mut at) = (0, 0);
        let bytes = self.rest.as_bytes();
        while at < bytes.len() {
            match &bytes[at..bytes.len().min(at + 2)] {
                b"/*" => (depth, at) = (depth + 1, at + 2),
                b"*/" => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
            if depth == 0 {
                break;
            }
        }
        for (number, text) in self.rest[..at].lines().enumerate() {
            let text = text.trim_matches(['/', '*', ' ', '!']).to_owned();
            self.comments.push(Comment { line: self.line + number, text });
        }
        self.skip(at);
    }

    /// Reads a string whose opening quote is at `quote`, and which is raw with so many `#` if there is a number.
    fn string(&mut self, quote: usize, hashes: Option<usize>) {
        let inside = &self.rest[quote + 1..];
        let length = match hashes {
            Some(hashes) => inside.find(&format!("\"{}", "#".repeat(hashes))).unwrap_or(inside.len()),
            None => {
                let (mut length, mut escaped) = (inside.len(), false);
                for (at, character) in inside.char_indices() {
                    match character {
                        _ if escaped => escaped = false,
                        '\\' => escaped = true,
                        '"' => {
                            length = at;
                            break;
                        }
                        _ => {}
                    }
                }
                length
            }
        };
        let text = inside[..length].to_owned();
        let last_line = self.line + text.matches('\n').count();
        self.tokens.push(Token { kind: Kind::Literal, text, line: self.line, last_line });
        self.skip((quote + 1 + length + 1 + hashes.unwrap_or(0)).min(self.rest.len()));
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let text = self.rest[..length].to_owned();
        self.tokens.push(Token { kind, text, line: self.line, last_line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// Index of the opening quote of a string that begins here, and for a raw string its number of `#`.
fn string_start(rest: &str) -> Option<(usize, Option<usize>)> {
    let prefix = rest.find(|character: char| !character.is_ascii_lowercase())?;
    let (prefix, rest) = rest.split_at(prefix);
    if !["", "b", "c", "r", "br", "cr"].contains(&prefix) {
        return None;
    }
    let raw = prefix.ends_with('r');
    let hashes = if raw { rest.len() - rest.trim_start_matches('#').len() } else { 0 };
    rest[hashes..].starts_with('"').then_some((prefix.len() + hashes, raw.then_some(hashes)))
}

/// How long the character literal is that begins here, if one does.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix("b'").or_else(|| rest.strip_prefix('\''))?;
    let begin = rest.len() - inside.len();
    let mut characters = inside.char_indices();
    let length = match characters.next()?.1 {
        '\\' => {
            let escaped = characters.next()?;
            escaped.0 + escaped.1.len_utf8() + inside[escaped.0 + escaped.1.len_utf8()..].find('\'')?
        }
        _ => characters.next().filter(|(_, character)| *character == '\'')?.0,
    };
    Some(begin + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        split(source).0.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn strings_characters_and_lifetimes_are_told_apart() {
        assert_eq!(words(r#"f("a\"b // no", 'c', '\'', b'\\')"#).join(" "), r#"f ( a\"b // no , 'c' , '\'' , b'\\' )"#);
        assert_eq!(words("x<'a> r#\"one \" two\"# y").join(" "), "x < a > one \" two y");
        assert_eq!(words("a::b::{c}").join(" "), "a :: b :: { c }");
    }

    #[test]
    fn comments_stand_apart_with_their_lines() {
        let (tokens, comments) = split("/// One.\nlet a; // two\n/* three\n /* four */ */ let\n");
        let comments: Vec<_> = comments.iter().map(|comment| (comment.line, comment.text.as_str())).collect();
        assert_eq!(comments, [(1, "One."), (2, "two"), (3, "three"), (4, "four")]);
        assert_eq!(tokens.iter().map(|token| token.line).collect::<Vec<_>>(), [2, 2, 2, 4]);
    }
}
