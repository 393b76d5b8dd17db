//! Parses a template into a tree. It never fails: a tag that cannot be parsed becomes [`Kind::Untranslated`], and parsing continues.

use std::collections::HashMap;

use super::expression::{Condition, Expression, Operand};
use super::fault::{Fault, condition, expression, fault};
use super::lexer::{self, Token};
use super::tags;
use super::tree::{BlockTranslate, For, Kind, Node, Nodes, Piece};

/// How deep blocks may be nested; Tera accepts 40.
const DEPTH_MAX: usize = 36;

/// Parses a template.
pub(crate) fn parse(text: &str) -> Nodes {
    let tokens = lexer::tokens(text);
    let ends = tokens.iter().enumerate().filter_map(|(at, token)| match token.kind {
        lexer::Kind::Tag(content) => Some((content.split_whitespace().next()?.strip_prefix("end")?, at)),
        _ => None,
    });
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, ends: ends.collect() };
    let mut nodes = Vec::new();
    loop {
        nodes.extend(parser.until(&[]));
        match parser.next() {
            Some(token) => nodes.push(untranslated(token, "there is no open tag that it belongs to", "remove it")),
            None => return nodes,
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    depth: usize,
    /// The position of the last end tag of each name.
    ends: HashMap<&'a str, usize>,
}

fn untranslated(token: &Token, reason: impl Into<String>, suggestion: impl Into<String>) -> Node {
    node(token, Kind::Untranslated(fault(reason, suggestion)))
}

fn node(token: &Token, kind: Kind) -> Node {
    Node { line: token.line, source: token.source.to_owned(), kind }
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a Token<'a>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    /// The first word of the next token, if that is a tag.
    fn peeked(&self) -> Option<&'a str> {
        match self.tokens.get(self.at)?.kind {
            lexer::Kind::Tag(content) => content.split_whitespace().next(),
            _ => None,
        }
    }

    /// Parses nodes up to one of the end tags, which is not consumed, or any other end tag, or the end of the file.
    fn until(&mut self, ends: &[&str]) -> Nodes {
        let mut nodes = Vec::new();
        while let Some(token) = self.tokens.get(self.at) {
            if self.peeked().is_some_and(|word| ends.contains(&word) || is_inner(word)) {
                break;
            }
            self.at += 1;
            self.read(token, &mut nodes);
        }
        nodes
    }

    fn read(&mut self, token: &'a Token<'a>, nodes: &mut Nodes) {
        match token.kind {
            lexer::Kind::Text => nodes.push(node(token, Kind::Text(token.source.to_owned()))),
            lexer::Kind::Comment(text) => nodes.push(node(token, Kind::Comment(text.to_owned()))),
            lexer::Kind::Variable(content) => nodes.push(match expression(content) {
                Ok(value) => node(token, Kind::Output(value)),
                Err(fault) => node(token, Kind::Untranslated(fault)),
            }),
            lexer::Kind::Tag(content) => {
                let words = lexer::words(content);
                if self.depth >= DEPTH_MAX {
                    let reason = format!("blocks are nested more than {DEPTH_MAX} deep");
                    return nodes.push(untranslated(token, reason, "move the inner ones into a file that is included"));
                }
                self.depth += 1;
                self.tag(token, &words, nodes);
                self.depth -= 1;
            }
        }
    }

    fn tag(&mut self, token: &'a Token<'a>, words: &[&'a str], nodes: &mut Nodes) {
        let (name, rest) = words.split_first().map_or(("", &[][..]), |(name, rest)| (*name, rest));
        match name {
            "if" => self.conditional(token, rest, nodes),
            "for" => self.for_loop(token, rest, nodes),
            "with" => self.enclosing(token, "endwith", tags::with(rest), Kind::With, nodes),
            "block" => self.enclosing(token, "endblock", tags::block(rest), Kind::Block, nodes),
            "autoescape" => self.enclosing(token, "endautoescape", tags::autoescape(rest), Kind::Autoescape, nodes),
            "filter" => self.enclosing(token, "endfilter", tags::filter(token), Kind::Filter, nodes),
            "spaceless" => self.enclosing(token, "endspaceless", Ok(()), |(), body| Kind::Spaceless(body), nodes),
            "timezone" => self.enclosing(token, "endtimezone", tags::time_zone(rest), Kind::TimeZone, nodes),
            "localtime" => {
                let utc = || Expression::from(Operand::Text("UTC".to_owned()));
                self.switched(token, tags::switch(rest, name), |body| Kind::TimeZone(utc(), body), nodes);
            }
            "localize" => self.switched(token, tags::switch(rest, name), Kind::Unlocalized, nodes),
            // Templates are not rendered from a cache, so the content is written as if the tag were not there.
            "cache" => self.switched(token, Ok(true), Kind::Unlocalized, nodes),
            "ifchanged" => self.if_changed(token, rest, nodes),
            "comment" => self.comment(token, nodes),
            "verbatim" => self.verbatim(nodes),
            "blocktrans" | "blocktranslate" => self.block_translate(token, name, rest, nodes),
            _ if tags::is_unknown(name) && self.has_end(name) => self.custom(token, name, rest, nodes),
            _ => nodes.push(match tags::simple(name, rest) {
                Ok(kind) => node(token, kind),
                Err(fault) => node(token, Kind::Untranslated(fault)),
            }),
        }
    }

    /// A block with one body. If its tag cannot be parsed, the body is kept without it.
    fn enclosing<T>(
        &mut self,
        token: &Token,
        end: &str,
        read: Result<T, Fault>,
        make: impl FnOnce(T, Nodes) -> Kind,
        nodes: &mut Nodes,
    ) {
        let body = self.until(&[end]);
        let closed = self.close(end);
        match (read, closed) {
            (Ok(read), true) => nodes.push(node(token, make(read, body))),
            (Ok(_), false) => {
                nodes.push(untranslated(token, format!("its {{% {end} %}} is missing"), "close it"));
                nodes.extend(body);
            }
            (Err(fault), _) => {
                nodes.push(node(token, Kind::Untranslated(fault)));
                nodes.extend(body);
            }
        }
    }

    /// A block that has an effect only if it is off.
    fn switched(
        &mut self,
        token: &Token,
        is_on: Result<bool, Fault>,
        off: impl FnOnce(Nodes) -> Kind,
        nodes: &mut Nodes,
    ) {
        let lexer::Kind::Tag(content) = token.kind else { return };
        let end = format!("end{}", content.split_whitespace().next().unwrap_or_default());
        let is_off = is_on.as_ref().is_ok_and(|is_on| !is_on);
        let mut inner = Vec::new();
        self.enclosing(token, &end, is_on, |_, body| off(body), &mut inner);
        match inner.pop() {
            // On is the default, so the block is not needed.
            Some(mut whole) if !is_off && !matches!(whole.kind, Kind::Untranslated(_)) && inner.is_empty() => {
                whole.bodies_mut().into_iter().for_each(|body| nodes.append(body));
            }
            last => nodes.extend(inner.into_iter().chain(last)),
        }
    }

    fn if_changed(&mut self, token: &Token, words: &[&str], nodes: &mut Nodes) {
        let body = self.until(&["else", "endifchanged"]);
        let otherwise = self.next_if(&["else"]).map(|_| self.until(&["endifchanged"]));
        if !self.close("endifchanged") {
            nodes.push(untranslated(token, "its {% endifchanged %} is missing", "close it"));
        }
        match tags::compared(words) {
            Ok(values) => nodes.push(node(token, Kind::IfChanged(values, body, otherwise))),
            Err(fault) => {
                nodes.push(node(token, Kind::Untranslated(fault)));
                nodes.extend(body.into_iter().chain(otherwise.into_iter().flatten()));
            }
        }
    }

    /// Whether an end tag of that name follows.
    fn has_end(&self, name: &str) -> bool {
        self.ends.get(name).is_some_and(|end| *end >= self.at)
    }

    /// A custom block.
    fn custom(&mut self, token: &Token, name: &str, words: &[&str], nodes: &mut Nodes) {
        let end = format!("end{name}");
        let mut body = self.until(&[&end]);
        while let Some(divider) = self.next_if(&["else", "elif", "empty"]) {
            body.push(untranslated(
                divider,
                format!("it belongs to {{% {name} %}}, which is not a Django tag"),
                "replace that tag with {% if %} first",
            ));
            body.extend(self.until(&[&end]));
        }
        if self.close(&end) {
            nodes.push(node(token, tags::custom(name, words, Some(body))));
        } else {
            nodes.push(node(token, tags::custom(name, words, None)));
            nodes.extend(body);
        }
    }

    fn close(&mut self, end: &str) -> bool {
        let closes = self.peeked() == Some(end);
        self.at += usize::from(closes);
        closes
    }

    fn conditional(&mut self, token: &Token, words: &[&str], nodes: &mut Nodes) {
        let mut branches = Vec::new();
        let mut read = condition(words).map(Some);
        let mut source = token;
        loop {
            let mut body = self.until(&["elif", "else", "endif"]);
            while matches!(read, Ok(None))
                && let Some(stray) = self.next_if(&["elif", "else"])
            {
                body.push(untranslated(
                    stray,
                    "it comes after {% else %}",
                    "Django does not accept it either: move it up",
                ));
                body.extend(self.until(&["elif", "else", "endif"]));
            }
            branches.push((
                read.unwrap_or_else(|fault| {
                    nodes.push(node(source, Kind::Untranslated(fault)));
                    // The branch is not rendered until somebody has written the condition.
                    Some(Condition::Value(Operand::False.into()))
                }),
                body,
            ));
            let Some(next) = self.next_if(&["elif", "else", "endif"]) else {
                nodes.push(untranslated(token, "its {% endif %} is missing", "close it"));
                break;
            };
            let lexer::Kind::Tag(content) = next.kind else { break };
            source = next;
            match lexer::words(content).split_first() {
                Some((&"elif", rest)) => read = condition(rest).map(Some),
                Some((&"else", _)) => read = Ok(None),
                _ => break,
            }
        }
        nodes.push(node(token, Kind::If(branches)));
    }

    fn next_if(&mut self, words: &[&str]) -> Option<&'a Token<'a>> {
        self.peeked().filter(|word| words.contains(word))?;
        self.next()
    }

    fn for_loop(&mut self, token: &Token, words: &[&str], nodes: &mut Nodes) {
        let body = self.until(&["empty", "endfor"]);
        let empty = self.next_if(&["empty"]).map(|_| self.until(&["endfor"]));
        if !self.close("endfor") {
            nodes.push(untranslated(token, "its {% endfor %} is missing", "close it"));
        }
        match tags::for_head(words) {
            Ok((names, values, is_reversed)) => {
                nodes.push(node(token, Kind::For(For { names, values, is_reversed, body, empty })));
            }
            Err(fault) => {
                nodes.push(node(token, Kind::Untranslated(fault)));
                nodes.extend(body.into_iter().chain(empty.into_iter().flatten()));
            }
        }
    }

    fn comment(&mut self, token: &Token, nodes: &mut Nodes) {
        let mut text = String::new();
        while let Some(inner) = self.next() {
            if matches!(inner.kind, lexer::Kind::Tag(content) if content == "endcomment") {
                return nodes.push(node(token, Kind::Comment(text)));
            }
            text.push_str(inner.source);
        }
        nodes.push(untranslated(token, "its {% endcomment %} is missing", "close it"));
        nodes.push(node(token, Kind::Comment(text)));
    }

    fn verbatim(&mut self, nodes: &mut Nodes) {
        while let Some(inner) = self.next() {
            if inner.kind != lexer::Kind::Text {
                break;
            }
            nodes.push(node(inner, Kind::Text(inner.source.to_owned())));
        }
    }

    fn block_translate(&mut self, token: &Token, name: &str, words: &[&str], nodes: &mut Nodes) {
        let start = self.at;
        let singular = self.pieces();
        let plural = self.next_if(&["plural"]).map(|_| self.pieces());
        let is_closed = self.close(&format!("end{name}"));
        let read = tags::block_translate(words).and_then(|mut head: BlockTranslate| {
            (head.singular, head.plural) = (singular, plural);
            match (head.count.is_some(), head.plural.is_some()) {
                _ if !is_closed => Err(fault(
                    format!("it contains a tag other than {{% plural %}}, or has no {{% end{name} %}}"),
                    "give the inner value a name before the block, as with {% … as name %}, and write {{ name }}",
                )),
                (true, false) => Err(fault("it has `count` but no {% plural %}", "add the plural, or remove `count`")),
                (false, true) => Err(fault("it has {% plural %} but no `count`", "add `count`")),
                _ => Ok(Kind::BlockTranslate(head)),
            }
        });
        match read {
            Ok(kind) => nodes.push(node(token, kind)),
            Err(fault) => {
                self.at = start;
                nodes.push(node(token, Kind::Untranslated(fault)));
            }
        }
    }

    fn pieces(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let Some(token) = self.tokens.get(self.at) {
            match token.kind {
                lexer::Kind::Text => pieces.push(Piece::Text(token.source.to_owned())),
                lexer::Kind::Variable(name) => pieces.push(Piece::Variable(name.to_owned())),
                lexer::Kind::Tag(_) | lexer::Kind::Comment(_) => break,
            }
            self.at += 1;
        }
        pieces
    }
}

/// Whether a tag ends or divides another one.
fn is_inner(word: &str) -> bool {
    const INNER: [&str; 16] = [
        "endcache",
        "endifchanged",
        "endlocalize",
        "endlocaltime",
        "endtimezone",
        "elif",
        "else",
        "endif",
        "empty",
        "endfor",
        "endwith",
        "endblock",
        "endautoescape",
        "endfilter",
        "endspaceless",
        "endcomment",
    ];
    INNER.contains(&word)
}
