//! Events about objects on loan: `kubectl describe pod` asks for those about the pod, and means
//! those about its Task.

use super::{View, source_uid};
use crate::kinds::event;
use crate::resource::ResourceDef;
use crate::selector::FieldSelector;

/// How core/v1 and events.k8s.io/v1 call what an event is about.
const ABOUT: [&str; 2] = ["involvedObject", "regarding"];

/// The view whose objects a field selector of events names.
pub(crate) fn shown_in_events(def: &ResourceDef, fields: &FieldSelector) -> Option<View> {
    let is_event = def.kind == "Event" && (def.group.is_empty() || def.group == event::GROUP);
    if !is_event {
        return None;
    }
    let about =
        |field: &str| ABOUT.iter().find_map(|about| fields.exact(&format!("{about}.{field}")));
    match about("kind") {
        Some(kind) => [View::Pod, View::Node].into_iter().find(|view| view.kind() == kind),
        // `kubectl describe` names a pod by its uid alone, and a node with its kind.
        None => about("uid").filter(|uid| source_uid(uid) != *uid).map(|_| View::Pod),
    }
}

impl View {
    /// The same selector, of the events about the source.
    pub(crate) fn events_of_source(self, fields: &FieldSelector) -> FieldSelector {
        let (group, kind) = self.source();
        fields.with(|field, value| match field.split_once('.')? {
            (about, "kind") if ABOUT.contains(&about) => Some(kind.to_owned()),
            (about, "uid") if ABOUT.contains(&about) => Some(source_uid(value)),
            (about, "apiVersion") if ABOUT.contains(&about) && value == "v1" => {
                Some(format!("{group}/v1"))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_about_a_pod_are_those_about_its_task() {
        let defs = crate::builtin::definitions();
        let of = |kind: &str| defs.iter().find(|def| def.kind == kind).unwrap();
        let pod = "11111111-1111-8111-8111-111111111111";
        let selector = |text: &str| FieldSelector::parse(text).unwrap();
        let asked = selector(&format!(
            "involvedObject.kind=Pod,involvedObject.name=a,involvedObject.uid={pod},involvedObject.apiVersion=v1"
        ));
        let view = shown_in_events(of("Event"), &asked).unwrap();
        assert_eq!(view, View::Pod);
        let wanted = "involvedObject.kind=Task,involvedObject.name=a,involvedObject.uid=11111111-1111-4111-8111-111111111111,\
                      involvedObject.apiVersion=commonage.dev/v1";
        let told = view.events_of_source(&asked);
        let fields =
            ["kind", "name", "uid", "apiVersion"].map(|name| format!("involvedObject.{name}"));
        for field in &fields {
            assert_eq!(told.exact(field), selector(wanted).exact(field), "{field}");
        }
        let by_uid = selector(&format!("involvedObject.name=a,involvedObject.uid={pod}"));
        assert_eq!(shown_in_events(of("Event"), &by_uid), Some(View::Pod));
        let of_task = selector("involvedObject.uid=11111111-1111-4111-8111-111111111111");
        assert_eq!(shown_in_events(of("Event"), &of_task), None);
        assert_eq!(shown_in_events(of("Event"), &selector("involvedObject.kind=Task")), None);
        assert_eq!(shown_in_events(of("Secret"), &selector("involvedObject.kind=Pod")), None);
    }
}
