//! Why an apply is refused, in kube-apiserver's words.

/// A field that somebody else owns and whose value the applier would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager as messages name it: `"m" with subresource "status" using v1`.
    pub manager: String,
    /// `.spec.env[name="A"].value`
    pub path: String,
}

impl Conflict {
    /// The message of the conflict's cause.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

/// A refused apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 400.
    #[error("{0}")]
    BadRequest(String),
    /// 409, with a cause per conflict; sorted by manager.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// What does not fit the schema, or an object whose entries cannot be read. kube-apiserver
    /// answers 500 without a reason.
    #[error("{0}")]
    Untyped(String),
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", only.message(), only.path);
    }
    let mut lines = Vec::new();
    let mut manager = None;
    for conflict in conflicts {
        if manager != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            manager = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
