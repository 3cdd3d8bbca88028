//! From tokens to an expression in the `cel` crate's form, with the places of its parts.
//!
//! That crate's own parser knows neither Kubernetes' macros nor, for an expression that parses,
//! where its parts are written, which the errors of a rule tell. Its grammar is generated from the
//! same one as cel-go's, though: what this parser cannot read is put to it for the words of the
//! error.

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue, MapEntryExpr, MapExpr,
    SelectExpr, StructExpr, StructFieldExpr,
};

use super::lexer::{Malformed, Token, is_reserved, tokens};
use super::macros;

/// Levels of an expression, cel-go's limit too.
const LEVELS_MAX: usize = 250;

/// An expression and where its parts are: byte offsets, by the ids of the parts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parsed {
    pub(super) expression: IdedExpr,
    pub(super) places: Vec<usize>,
}

/// Why a text is not taken.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    Malformed,
    /// What a macro has against its arguments, and where.
    Macro(usize, String),
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Refused::Malformed
    }
}

pub(super) fn parse(text: &str) -> Result<Parsed, Refused> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, level: 0, places: vec![0] };
    let expression = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(Parsed { expression, places: parser.places }),
        _ => Err(Refused::Malformed),
    }
}

pub(super) struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    level: usize,
    places: Vec<usize>,
}

type Read = Result<IdedExpr, Refused>;

const RELATIONS: [(&str, &str); 7] = [
    ("<", op::LESS),
    ("<=", op::LESS_EQUALS),
    (">", op::GREATER),
    (">=", op::GREATER_EQUALS),
    ("==", op::EQUALS),
    ("!=", op::NOT_EQUALS),
    ("in", op::IN),
];
const SUMS: [(&str, &str); 2] = [("+", op::ADD), ("-", op::SUBSTRACT)];
const PRODUCTS: [(&str, &str); 3] = [("*", op::MULTIPLY), ("/", op::DIVIDE), ("%", op::MODULO)];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].1
    }

    fn place(&self) -> usize {
        self.tokens[self.at].0
    }

    fn skip(&mut self) -> usize {
        let place = self.place();
        self.at += usize::from(self.at + 1 < self.tokens.len());
        place
    }

    fn take(&mut self, mark: &str) -> Option<usize> {
        matches!(self.peek(), Token::Mark(found) if *found == mark).then(|| self.skip())
    }

    fn expect(&mut self, mark: &str) -> Result<usize, Malformed> {
        self.take(mark).ok_or(Malformed)
    }

    /// A new part at a place.
    pub(super) fn part(&mut self, place: usize, expr: Expr) -> IdedExpr {
        self.places.push(place);
        IdedExpr { id: self.places.len() as u64 - 1, expr }
    }

    pub(super) fn call(&mut self, place: usize, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        let call = CallExpr { func_name: name.to_owned(), target: None, args };
        self.part(place, Expr::Call(call))
    }

    pub(super) fn place_of(&self, part: &IdedExpr) -> usize {
        self.places.get(part.id as usize).copied().unwrap_or_default()
    }

    fn expression(&mut self) -> Read {
        self.level += 1;
        if self.level > LEVELS_MAX {
            return Err(Refused::Malformed);
        }
        let condition = self.junction("||", op::LOGICAL_OR)?;
        let read = match self.take("?") {
            None => condition,
            Some(place) => {
                let yes = self.junction("||", op::LOGICAL_OR)?;
                self.expect(":")?;
                let no = self.expression()?;
                self.call(place, op::CONDITIONAL, vec![condition, yes, no])
            }
        };
        self.level -= 1;
        Ok(read)
    }

    /// `a || b || c` or `a && b && c`, as a balanced tree.
    fn junction(&mut self, mark: &str, name: &str) -> Read {
        let read = |parser: &mut Parser| match mark {
            "||" => parser.junction("&&", op::LOGICAL_AND),
            _ => parser.chain(0),
        };
        let mut terms = vec![Some(read(self)?)];
        let mut places = Vec::new();
        while let Some(place) = self.take(mark) {
            places.push(place);
            terms.push(Some(read(self)?));
        }
        Ok(self.balanced(name, &mut terms, &places))
    }

    fn balanced(
        &mut self,
        name: &str,
        terms: &mut [Option<IdedExpr>],
        places: &[usize],
    ) -> IdedExpr {
        if places.is_empty() {
            return terms[0].take().expect("each term is taken once");
        }
        let middle = places.len() / 2;
        let (before, after) = terms.split_at_mut(middle + 1);
        let left = self.balanced(name, before, &places[..middle]);
        let right = self.balanced(name, after, &places[middle + 1..]);
        self.call(places[middle], name, vec![left, right])
    }

    /// Binary operators that bind to the left: relations, sums, products.
    fn chain(&mut self, rank: usize) -> Read {
        let ranks: [&[(&str, &str)]; 3] = [&RELATIONS, &SUMS, &PRODUCTS];
        let Some(operators) = ranks.get(rank) else { return self.unary() };
        let mut left = self.chain(rank + 1)?;
        while let Token::Mark(mark) = *self.peek()
            && let Some((_, name)) = operators.iter().find(|(found, _)| *found == mark)
        {
            let place = self.skip();
            let right = self.chain(rank + 1)?;
            left = self.call(place, name, vec![left, right]);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Read {
        for (mark, name) in [("!", op::LOGICAL_NOT), ("-", op::NEGATE)] {
            let place = self.place();
            let mut count = 0;
            while self.take(mark).is_some() {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            if mark == "-"
                && count == 1
                && let Some(literal) = self.negative()
            {
                self.skip();
                let literal = self.part(place, Expr::Literal(literal));
                return self.postfix(literal);
            }
            let operand = self.member()?;
            return Ok(match count % 2 {
                0 => operand,
                _ => self.call(place, name, vec![operand]),
            });
        }
        self.member()
    }

    /// The number that comes next, with a minus sign.
    fn negative(&self) -> Option<LiteralValue> {
        match self.peek() {
            Token::Literal(LiteralValue::Int(value)) => {
                Some(LiteralValue::Int(value.inner().wrapping_neg().into()))
            }
            Token::Literal(LiteralValue::Double(value)) => {
                Some(LiteralValue::Double((-value.inner()).into()))
            }
            _ => None,
        }
    }

    fn member(&mut self) -> Read {
        let primary = self.primary()?;
        self.postfix(primary)
    }

    fn postfix(&mut self, mut read: IdedExpr) -> Read {
        loop {
            if let Some(place) = self.take(".") {
                let optional = self.take("?").is_some();
                let (at, name) = self.name()?;
                read = match (optional, self.take("(")) {
                    (true, Some(_)) => return Err(Refused::Malformed),
                    (true, None) => {
                        let name = Expr::Literal(LiteralValue::String(name.into()));
                        let name = self.part(at, name);
                        self.call(place, op::OPT_SELECT, vec![read, name])
                    }
                    (false, Some(open)) => self.called(open, Some(read), name)?,
                    (false, None) => {
                        let operand = Box::new(read);
                        let select = SelectExpr { operand, field: name, test: false };
                        self.part(place, Expr::Select(select))
                    }
                };
            } else if let Some(place) = self.take("[") {
                let name = if self.take("?").is_some() { op::OPT_INDEX } else { op::INDEX };
                let key = self.expression()?;
                self.expect("]")?;
                read = self.call(place, name, vec![read, key]);
            } else if let Some(type_name) = qualified(&read)
                && matches!(self.peek(), Token::Mark("{"))
            {
                read = self.message(type_name)?;
            } else {
                return Ok(read);
            }
        }
    }

    fn name(&mut self) -> Result<(usize, String), Malformed> {
        let Token::Ident(name) = self.peek() else { return Err(Malformed) };
        let name = name.clone();
        Ok((self.skip(), name))
    }

    fn primary(&mut self) -> Read {
        let place = self.place();
        match self.peek().clone() {
            Token::Literal(literal) => {
                // Only with its sign is the least number one.
                if matches!(&literal, LiteralValue::Int(value) if *value.inner() < 0) {
                    return Err(Refused::Malformed);
                }
                self.skip();
                Ok(self.part(place, Expr::Literal(literal)))
            }
            Token::Ident(name) => {
                self.skip();
                if let Some(open) = self.take("(") {
                    return self.called(open, None, name);
                }
                match is_reserved(&name) {
                    true => Err(Refused::Malformed),
                    false => Ok(self.part(place, Expr::Ident(name))),
                }
            }
            Token::Mark(".") => {
                self.skip();
                let (_, name) = self.name()?;
                Ok(self.part(place, Expr::Ident(name)))
            }
            Token::Mark("(") => {
                self.skip();
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Mark("[") => self.list(),
            Token::Mark("{") => self.map(),
            _ => Err(Refused::Malformed),
        }
    }

    /// A call, whose opening parenthesis has been read: a macro if there is one of this form.
    fn called(&mut self, place: usize, target: Option<IdedExpr>, name: String) -> Read {
        let mut args = Vec::new();
        while self.take(")").is_none() {
            args.push(self.expression()?);
            if self.take(",").is_none() {
                self.expect(")")?;
                break;
            }
            if matches!(self.peek(), Token::Mark(")")) {
                return Err(Refused::Malformed);
            }
        }
        if let Some(expand) = macros::find(&name, target.is_some(), args.len()) {
            return expand(&mut macros::Site { parser: self, place }, target, args);
        }
        let call = CallExpr { func_name: name, target: target.map(Box::new), args };
        Ok(self.part(place, Expr::Call(call)))
    }

    fn list(&mut self) -> Read {
        let place = self.expect("[")?;
        let (mut elements, mut optional_indices) = (Vec::new(), Vec::new());
        while self.take("]").is_none() {
            if self.take("?").is_some() {
                optional_indices.push(elements.len());
            }
            elements.push(self.expression()?);
            if self.take(",").is_none() {
                self.expect("]")?;
                break;
            }
        }
        Ok(self.part(place, Expr::List(ListExpr { elements, optional_indices })))
    }

    fn map(&mut self) -> Read {
        let place = self.expect("{")?;
        let mut entries = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let key = self.expression()?;
            let at = self.expect(":")?;
            let value = self.expression()?;
            let entry = EntryExpr::MapEntry(MapEntryExpr { key, value, optional });
            self.places.push(at);
            entries.push(IdedEntryExpr { id: self.places.len() as u64 - 1, expr: entry });
            if self.take(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Ok(self.part(place, Expr::Map(MapExpr { entries })))
    }

    fn message(&mut self, type_name: String) -> Read {
        let place = self.expect("{")?;
        let mut entries = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let (_, field) = self.name()?;
            let at = self.expect(":")?;
            let value = self.expression()?;
            let entry = EntryExpr::StructField(StructFieldExpr { field, value, optional });
            self.places.push(at);
            entries.push(IdedEntryExpr { id: self.places.len() as u64 - 1, expr: entry });
            if self.take(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Ok(self.part(place, Expr::Struct(StructExpr { type_name, entries })))
    }
}

/// `a.b.c`, of nothing but names.
pub(super) fn qualified(part: &IdedExpr) -> Option<String> {
    match &part.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
}
