//! What an account may do that speaks for a framework.
//!
//! Whoever may `use` a Framework (a verb of ours, granted by RBAC like any other, usually with
//! resourceNames) reaches the tasks and offers of that framework, though those have names that
//! nobody knows beforehand. Lists and watches must say by field selector whose objects they want.
//! `docs/access.md` shows how to grant it.

use super::agents::{Bound, OUR_GROUP, exact};
use super::authorizer::{Attributes, Verdict};

const FRAMEWORK_FIELD: &str = "spec.framework";

/// The verdict, and the reason of a refusal that deserves one. `may_use` is asked for one
/// framework, or (`None`) for any.
pub(super) fn decide(
    request: &Attributes<'_>,
    may_use: impl Fn(Option<&str>) -> bool,
    bound: impl FnOnce() -> Bound,
) -> (Verdict, &'static str) {
    const NO: (Verdict, &str) = (Verdict::Denied, "");
    if request.group != OUR_GROUP || !knows(request) || !may_use(None) {
        return NO;
    }
    let allowed = match request.verb {
        "list" | "watch" | "deletecollection" => {
            match exact(request.field_selector, FRAMEWORK_FIELD) {
                Some(framework) => may_use(Some(&framework)),
                None => {
                    let why = "can only select objects with spec.framework field selector";
                    return (Verdict::Denied, why);
                }
            }
        }
        "create" if request.name.is_empty() => return (Verdict::IfFrameworkIsOwn, ""),
        _ => match bound() {
            Bound::Missing => true,
            Bound::To(framework) => may_use(Some(&framework)),
        },
    };
    if allowed { (Verdict::Allowed, "") } else { NO }
}

/// What there is to do for a framework at all.
fn knows(request: &Attributes<'_>) -> bool {
    let reads = matches!(request.verb, "get" | "list" | "watch");
    let writes =
        matches!(request.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    match (request.resource, request.subresource) {
        ("tasks", "") => reads || writes,
        ("tasks", "status" | "log" | "sandbox") | ("offers", "status") => request.verb == "get",
        ("tasks", "exec" | "attach" | "portforward") => matches!(request.verb, "get" | "create"),
        ("tasks", "kill") => request.verb == "create",
        ("offers", "") => reads,
        ("offers", "accept" | "decline") => request.verb == "create",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_reaches_what_belongs_to_its_framework() {
        let (yes, no) = (Verdict::Allowed, Verdict::Denied);
        for (verb, resource, name, field_selector, verdict) in [
            ("list", "tasks", "", "", no),
            ("list", "tasks", "", "spec.framework=spark", yes),
            ("watch", "offers", "", "spec.framework=spark", yes),
            ("watch", "offers", "", "spec.framework=flink", no),
            ("deletecollection", "tasks", "", "spec.framework=spark", yes),
            ("deletecollection", "offers", "", "spec.framework=spark", no),
            ("get", "tasks", "spark", "", yes),
            ("get", "tasks", "flink", "", no),
            ("get", "tasks", "gone", "", yes),
            ("create", "tasks", "", "", Verdict::IfFrameworkIsOwn),
            ("delete", "tasks", "spark", "", yes),
            ("patch", "tasks/status", "spark", "", no),
            ("get", "tasks/log", "spark", "", yes),
            ("create", "tasks/binding", "spark", "", no),
            ("create", "offers/accept", "spark", "", yes),
            ("create", "offers/decline", "flink", "", no),
            ("delete", "offers", "spark", "", no),
            ("get", "frameworks", "spark", "", no),
        ] {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let request = Attributes {
                verb,
                is_resource: true,
                group: OUR_GROUP,
                resource,
                subresource,
                namespace: "default",
                name,
                field_selector,
                ..Attributes::default()
            };
            // Every object here is named after its framework.
            let bound = || match name {
                "gone" => Bound::Missing,
                framework => Bound::To(framework.to_owned()),
            };
            let own = |framework: Option<&str>| framework.is_none_or(|name| name == "spark");
            assert_eq!(decide(&request, own, bound).0, verdict, "{request:?}");
            assert_eq!(decide(&request, |_| false, bound).0, no, "{request:?}");
        }
    }
}
