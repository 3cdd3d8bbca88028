//! Where a finding is, without allocating on the way there.

use std::fmt;

/// `spec.env[0].name`, linked from the innermost part outwards.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Member(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
    /// A member of a map whose names are data: `spec.limits[cpu]`.
    Key(&'p Path<'p>, &'p str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Member(Path::Root, name) => f.write_str(name),
            Path::Member(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, name) => write!(f, "{parent}[{name}]"),
        }
    }
}

impl Path<'_> {
    /// The field of a cause: Kubernetes has no path for the whole object and prints `<nil>`.
    pub(super) fn field(&self) -> String {
        match self {
            Path::Root => "<nil>".to_owned(),
            path => path.to_string(),
        }
    }
}
