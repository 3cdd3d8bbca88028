//! The types of expressions, and which of them fit where others are wanted.

use std::rc::Rc;

use super::decl::Decl;

#[derive(Clone, Debug)]
pub(super) enum Type {
    /// Not known until the expression is evaluated.
    Dyn,
    /// Of what is wrong already: fits everywhere, so that an error is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Rc<Type>),
    Map(Rc<(Type, Type)>),
    Optional(Rc<Type>),
    /// A type as a value.
    AsValue(Rc<Type>),
    /// A value of a library.
    Opaque(&'static str),
    Object(Rc<Decl>),
    /// To be found out.
    Variable(usize),
}

impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b))
            | (Type::Optional(a), Type::Optional(b))
            | (Type::AsValue(a), Type::AsValue(b)) => a == b,
            (Type::Map(a), Type::Map(b)) => a == b,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Object(a), Type::Object(b)) => Rc::ptr_eq(a, b),
            (Type::Variable(a), Type::Variable(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Type {
    pub(super) fn list(items: Type) -> Type {
        Type::List(Rc::new(items))
    }

    pub(super) fn map(keys: Type, values: Type) -> Type {
        Type::Map(Rc::new((keys, values)))
    }

    pub(super) fn optional(of: Type) -> Type {
        Type::Optional(Rc::new(of))
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// As messages name it.
    pub(super) fn name(&self) -> String {
        match self {
            Type::Dyn | Type::Variable(_) => "dyn".into(),
            Type::Error => "!error!".into(),
            Type::Null => "null".into(),
            Type::Bool => "bool".into(),
            Type::Int => "int".into(),
            Type::Uint => "uint".into(),
            Type::Double => "double".into(),
            Type::String => "string".into(),
            Type::Bytes => "bytes".into(),
            Type::Duration => "google.protobuf.Duration".into(),
            Type::Timestamp => "google.protobuf.Timestamp".into(),
            Type::List(items) => format!("list({})", items.name()),
            Type::Map(of) => format!("map({}, {})", of.0.name(), of.1.name()),
            Type::Optional(of) => format!("optional_type({})", of.name()),
            Type::AsValue(of) => format!("type({})", of.name()),
            Type::Opaque(name) => (*name).into(),
            Type::Object(_) => "object".into(),
        }
    }

    /// Whether values have a fixed size.
    pub(super) fn is_scalar(&self) -> bool {
        match self {
            Type::Bool
            | Type::Int
            | Type::Uint
            | Type::Double
            | Type::Duration
            | Type::Timestamp => true,
            Type::Optional(of) => of.is_scalar(),
            _ => false,
        }
    }
}

/// What the variables of types stand for, as far as it has been found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings(Vec<Option<Type>>);

impl Bindings {
    pub(super) fn fresh(&mut self) -> Type {
        self.0.push(None);
        Type::Variable(self.0.len() - 1)
    }

    /// Whether values of the second type fit where the first is wanted; if so, what that tells of
    /// variables is kept.
    pub(super) fn fits(&mut self, wanted: &Type, given: &Type) -> bool {
        self.fit_all(std::slice::from_ref(wanted), std::slice::from_ref(given))
    }

    pub(super) fn fit_all(&mut self, wanted: &[Type], given: &[Type]) -> bool {
        let before = self.0.clone();
        let fit = wanted.len() == given.len()
            && wanted.iter().zip(given).all(|(wanted, given)| self.assign(wanted, given));
        if !fit {
            self.0 = before;
        }
        fit
    }

    fn assign(&mut self, wanted: &Type, given: &Type) -> bool {
        if let Type::Variable(at) = wanted {
            match self.bind(*at, given) {
                Bound::Yes => return true,
                Bound::Otherwise => return false,
                Bound::Circular => {}
            }
        }
        if let Type::Variable(at) = given {
            return matches!(self.bind(*at, wanted), Bound::Yes);
        }
        match (wanted, given) {
            (wanted, given) if wanted.is_open() || given.is_open() => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null
                    | Type::Duration
                    | Type::Timestamp
                    | Type::Object(_)
                    | Type::Opaque(_)
                    | Type::Optional(_)
            ),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
                self.assign(a, b)
            }
            (Type::AsValue(_), Type::AsValue(_)) => true,
            (Type::Map(a), Type::Map(b)) => self.assign(&a.0, &b.0) && self.assign(&a.1, &b.1),
            (wanted, given) => wanted == given,
        }
    }

    fn bind(&mut self, at: usize, type_: &Type) -> Bound {
        if *type_ == Type::Variable(at) {
            return Bound::Yes;
        }
        match self.0[at].clone() {
            Some(known) if known == *type_ => Bound::Yes,
            Some(known) => {
                if !self.assign(&known, type_) {
                    return Bound::Otherwise;
                }
                let general = if type_.is_open() { type_ } else { &known };
                if !self.mentions(general, at) {
                    self.0[at] = Some(general.clone());
                }
                Bound::Yes
            }
            None if self.mentions(type_, at) => Bound::Circular,
            None => {
                self.0[at] = Some(type_.clone());
                Bound::Yes
            }
        }
    }

    fn mentions(&self, type_: &Type, variable: usize) -> bool {
        match type_ {
            Type::Variable(at) if *at == variable => true,
            Type::Variable(at) => {
                self.0[*at].as_ref().is_some_and(|known| self.mentions(known, variable))
            }
            Type::List(of) | Type::Optional(of) | Type::AsValue(of) => self.mentions(of, variable),
            Type::Map(of) => self.mentions(&of.0, variable) || self.mentions(&of.1, variable),
            _ => false,
        }
    }

    /// The type with what is known put in for its variables.
    pub(super) fn settle(&self, type_: &Type) -> Type {
        match type_ {
            Type::Variable(at) => match &self.0[*at] {
                Some(known) => self.settle(known),
                None => type_.clone(),
            },
            Type::List(of) => Type::list(self.settle(of)),
            Type::Optional(of) => Type::optional(self.settle(of)),
            Type::AsValue(of) => Type::AsValue(Rc::new(self.settle(of))),
            Type::Map(of) => Type::map(self.settle(&of.0), self.settle(&of.1)),
            other => other.clone(),
        }
    }
}

enum Bound {
    Yes,
    /// To something else already.
    Otherwise,
    Circular,
}
