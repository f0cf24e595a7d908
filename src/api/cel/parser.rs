//! Expressions as trees; macros are expanded here.

use std::rc::Rc;

use super::lexer::{Token, split};

/// Deepest nesting.
const MAX_DEPTH: usize = 60;
/// Longest expression, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// What a comprehension makes of its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    All,
    Exists,
    ExistsOne,
    Filter,
    /// With a condition, or without.
    Map,
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// An expression.
#[derive(Debug)]
pub(super) enum Node {
    Constant(Constant),
    Variable(String),
    /// `a.b`; with a question mark it is optional.
    Select {
        of: Box<Node>,
        field: String,
        optional: bool,
    },
    /// `has(a.b)`.
    Has {
        of: Box<Node>,
        field: String,
    },
    /// `a[b]`; with a question mark it is optional.
    Index {
        of: Box<Node>,
        index: Box<Node>,
        optional: bool,
    },
    /// `f(a)`; operators too.
    Call {
        name: String,
        arguments: Vec<Node>,
    },
    /// `a.f(b)`.
    Method {
        of: Box<Node>,
        name: String,
        arguments: Vec<Node>,
    },
    /// `[a, ?b]`.
    List(Vec<(Node, bool)>),
    /// `{a: b, ?c: d}`.
    Map(Vec<(Node, Node, bool)>),
    /// `A.b{c: d, ?e: f}`.
    Struct {
        name: String,
        fields: Vec<(String, Node, bool)>,
    },
    /// `a ? b : c`.
    If {
        condition: Box<Node>,
        then: Box<Node>,
        otherwise: Box<Node>,
    },
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    /// `a.all(x, p)` and the like; `second` is the variable of values where there are two.
    Fold {
        fold: Fold,
        of: Box<Node>,
        variable: String,
        second: Option<String>,
        condition: Option<Box<Node>>,
        result: Option<Box<Node>>,
    },
    /// `a.optMap(x, b)`; flat if the result is optional itself.
    Bind {
        of: Box<Node>,
        variable: String,
        result: Box<Node>,
        flat: bool,
    },
}

/// Reads an expression; the error is a sentence.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("the expression is longer than {MAX_LENGTH} bytes"));
    }
    let mut parser = Parser { tokens: split(text)?.into(), at: 0, depth: 0 };
    let node = parser.expression()?;
    match parser.peek() {
        None => Ok(node),
        Some(token) => Err(format!("Syntax error: unexpected {}", shown(token))),
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Ident(name) => format!("'{name}'"),
        Token::Sign(sign) => format!("'{sign}'"),
        Token::Text(text) => format!("{text:?}"),
        other => format!("{other:?}"),
    }
}

struct Parser {
    tokens: Rc<[Token]>,
    at: usize,
    depth: usize,
}

/// Operators of one rank, by their names as functions.
type Rank = &'static [(&'static str, &'static str)];
const RELATIONS: Rank = &[("==", "_==_"), ("!=", "_!=_"), ("<=", "_<=_"), (">=", "_>=_"), ("<", "_<_"), (">", "_>_")];
const SUMS: Rank = &[("+", "_+_"), ("-", "_-_")];
const PRODUCTS: Rank = &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")];
/// Words that are no names (cel-spec, "Syntax"), beside the operators and constants that are words.
pub(super) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Sign(own)) if *own == sign);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.take(sign) {
            return Ok(());
        }
        let found = self.peek().map_or("the end".to_owned(), shown);
        Err(format!("Syntax error: expected '{sign}', found {found}"))
    }

    /// Goes one level deeper; nesting is bounded, because all that walks the tree recurses.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("expression recursion limit exceeded".to_owned());
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<Node, String> {
        self.deeper(|parser| {
            let condition = parser.or()?;
            if !parser.take("?") {
                return Ok(condition);
            }
            let then = parser.or()?;
            parser.expect(":")?;
            let otherwise = parser.expression()?;
            Ok(Node::If { condition: condition.into(), then: then.into(), otherwise: otherwise.into() })
        })
    }

    fn or(&mut self) -> Result<Node, String> {
        let mut parts = vec![self.and()?];
        while self.take("||") {
            parts.push(self.and()?);
        }
        Ok(balanced(parts, |a, b| Node::Or(a.into(), b.into())))
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut parts = vec![self.relation()?];
        while self.take("&&") {
            parts.push(self.relation()?);
        }
        Ok(balanced(parts, |a, b| Node::And(a.into(), b.into())))
    }

    fn relation(&mut self) -> Result<Node, String> {
        let mut left = self.ranked(SUMS, Self::product)?;
        let mut count = 0;
        loop {
            let name = if matches!(self.peek(), Some(Token::Ident(word)) if word == "in") {
                self.at += 1;
                Some("@in")
            } else {
                RELATIONS.iter().find(|(sign, _)| self.take(sign)).map(|(_, name)| *name)
            };
            let Some(name) = name else { return Ok(left) };
            count += 1;
            self.chain(count)?;
            let right = self.ranked(SUMS, Self::product)?;
            left = Node::Call { name: name.to_owned(), arguments: vec![left, right] };
        }
    }

    /// A chain nests as deep as it is long.
    fn chain(&self, count: usize) -> Result<(), String> {
        if self.depth + count > 2 * MAX_DEPTH { Err("expression recursion limit exceeded".to_owned()) } else { Ok(()) }
    }

    fn product(&mut self) -> Result<Node, String> {
        self.ranked(PRODUCTS, Self::unary)
    }

    fn ranked(&mut self, rank: Rank, next: fn(&mut Self) -> Result<Node, String>) -> Result<Node, String> {
        let mut left = next(self)?;
        let mut count = 0;
        while let Some((_, name)) = rank.iter().find(|(sign, _)| self.take(sign)) {
            count += 1;
            self.chain(count)?;
            let right = next(self)?;
            left = Node::Call { name: (*name).to_owned(), arguments: vec![left, right] };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, String> {
        for (sign, name) in [("!", "!_"), ("-", "-_")] {
            if self.take(sign) {
                let inner = self.deeper(Self::unary)?;
                return Ok(match inner {
                    Node::Constant(Constant::Int(number)) if sign == "-" => {
                        Node::Constant(Constant::Int(number.wrapping_neg()))
                    }
                    Node::Constant(Constant::Double(number)) if sign == "-" => {
                        Node::Constant(Constant::Double(-number))
                    }
                    inner => Node::Call { name: name.to_owned(), arguments: vec![inner] },
                });
            }
        }
        self.member()
    }

    fn member(&mut self) -> Result<Node, String> {
        let mut node = self.primary()?;
        let mut count = 0;
        loop {
            count += 1;
            self.chain(count)?;
            if self.take(".") {
                let optional = self.take("?");
                let name = self.name()?;
                node = if !optional && self.take("(") {
                    let arguments = self.arguments(")")?;
                    method(node, name, arguments)?
                } else {
                    Node::Select { of: node.into(), field: name, optional }
                };
            } else if self.take("[") {
                let optional = self.take("?");
                let index = self.expression()?;
                self.expect("]")?;
                node = Node::Index { of: node.into(), index: index.into(), optional };
            } else if let Some(name) = qualified(&node)
                && self.take("{")
            {
                node = Node::Struct { name, fields: self.fields()? };
            } else {
                return Ok(node);
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.peek().cloned() {
            Some(Token::Ident(name)) if !matches!(name.as_str(), "true" | "false" | "null" | "in") => {
                self.at += 1;
                Ok(name)
            }
            other => Err(format!(
                "Syntax error: expected a name, found {}",
                other.as_ref().map_or("the end".to_owned(), shown)
            )),
        }
    }

    fn arguments(&mut self, end: &str) -> Result<Vec<Node>, String> {
        let mut arguments = Vec::new();
        if self.take(end) {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if !self.take(",") {
                self.expect(end)?;
                return Ok(arguments);
            }
        }
    }

    fn primary(&mut self) -> Result<Node, String> {
        if self.take("(") {
            let node = self.expression()?;
            self.expect(")")?;
            return Ok(node);
        }
        if self.take("[") {
            return self.list();
        }
        if self.take("{") {
            return self.map();
        }
        self.take(".");
        let token = self.peek().cloned().ok_or("Syntax error: unexpected end")?;
        self.at += 1;
        Ok(Node::Constant(match token {
            Token::Int(number) => Constant::Int(number),
            Token::Uint(number) => Constant::Uint(number),
            Token::Double(number) => Constant::Double(number),
            Token::Text(text) => Constant::Text(text),
            Token::Bytes(bytes) => Constant::Bytes(bytes),
            Token::Ident(name) => match name.as_str() {
                "null" => Constant::Null,
                "true" => Constant::Bool(true),
                "false" => Constant::Bool(false),
                word if RESERVED.contains(&word) => return Err(format!("Syntax error: reserved identifier: {word}")),
                _ if self.take("(") => {
                    let arguments = self.arguments(")")?;
                    return call(name, arguments);
                }
                _ => return Ok(Node::Variable(name)),
            },
            Token::Sign(_) => return Err(format!("Syntax error: unexpected {}", shown(&token))),
        }))
    }

    fn list(&mut self) -> Result<Node, String> {
        let mut items = Vec::new();
        while !self.take("]") {
            let optional = self.take("?");
            items.push((self.expression()?, optional));
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Node::List(items))
    }

    fn map(&mut self) -> Result<Node, String> {
        let mut entries = Vec::new();
        while !self.take("}") {
            let optional = self.take("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Node::Map(entries))
    }

    fn fields(&mut self) -> Result<Vec<(String, Node, bool)>, String> {
        let mut fields: Vec<(String, Node, bool)> = Vec::new();
        while !self.take("}") {
            let optional = self.take("?");
            let name = self.name()?;
            self.expect(":")?;
            if fields.iter().any(|(known, ..)| *known == name) {
                return Err(format!("Syntax error: field '{name}' is set twice"));
            }
            fields.push((name, self.expression()?, optional));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(fields)
    }
}

/// The name of a type, which looks like fields of a variable.
fn qualified(node: &Node) -> Option<String> {
    match node {
        Node::Variable(name) => Some(name.clone()),
        Node::Select { of, field, optional: false } => qualified(of).map(|of| format!("{of}.{field}")),
        _ => None,
    }
}

/// A tree of little depth, so that long chains are no deep ones.
fn balanced(mut parts: Vec<Node>, join: fn(Node, Node) -> Node) -> Node {
    while parts.len() > 1 {
        let mut next = Vec::with_capacity(parts.len().div_ceil(2));
        let mut pairs = parts.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => join(left, right),
                None => left,
            });
        }
        parts = next;
    }
    parts.pop().unwrap_or(Node::Constant(Constant::Null))
}

fn call(name: String, mut arguments: Vec<Node>) -> Result<Node, String> {
    if name != "has" {
        return Ok(Node::Call { name, arguments });
    }
    match (arguments.pop(), arguments.is_empty()) {
        (Some(Node::Select { of, field, optional: false }), true) => Ok(Node::Has { of, field }),
        _ => Err("invalid argument to has() macro".to_owned()),
    }
}

fn method(of: Node, name: String, mut arguments: Vec<Node>) -> Result<Node, String> {
    let fold = match (name.as_str(), arguments.len()) {
        ("all", 2 | 3) => Fold::All,
        ("exists", 2 | 3) => Fold::Exists,
        ("exists_one", 2) | ("existsOne", 2 | 3) => Fold::ExistsOne,
        ("filter", 2) => Fold::Filter,
        ("map", 2 | 3) => Fold::Map,
        ("optMap" | "optFlatMap", 2) => {
            let result = arguments.pop().map(Box::new).ok_or_else(String::new)?;
            let variable = variable(arguments.pop())?;
            return Ok(Node::Bind { of: of.into(), variable, result, flat: name == "optFlatMap" });
        }
        _ => return Ok(Node::Method { of: of.into(), name, arguments }),
    };
    let last = arguments.pop().map(Box::new);
    let (condition, result) = match fold {
        Fold::Map if arguments.len() == 2 => (arguments.pop().map(Box::new), last),
        Fold::Map => (None, last),
        _ => (last, None),
    };
    let second = if arguments.len() == 2 { Some(variable(arguments.pop())?) } else { None };
    let variable = variable(arguments.pop())?;
    Ok(Node::Fold { fold, of: of.into(), variable, second, condition, result })
}

fn variable(node: Option<Node>) -> Result<String, String> {
    match node {
        Some(Node::Variable(name)) => Ok(name),
        _ => Err("argument must be a simple name".to_owned()),
    }
}
