//! What a plan says of reservations: who may count on them, what of them is used already, and who may not.

use commonage_schemas::{TaskState, framework::Placement, offer::ReservedPart};

use super::super::accounting::{
    reserved_tests::{bound, placing, reservation, waiting},
    tests::{framework, identified, launched, resources},
};
use super::*;

/// Two agents of 4 cpus each, and 3 cpus of the first reserved for queue `q`.
fn books() -> Accounting {
    let mut books = placing();
    let first = books.world().agents.iter().next().unwrap().clone();
    let mut second = identified((*first).clone(), "b", 3);
    second.metadata.namespace = None;
    books.take_in(Input::Agent(Event::Apply(second)));
    books.take_in(Input::Reservation(Event::Apply(bound(reservation("r", 10, "3")))));
    books
}

/// A task of a queue that nothing is reserved for.
fn stranger(books: &mut Accounting, cpu: &str) -> Task {
    let mut other = identified(framework(), "g", 20);
    other.spec.queues = vec!["p".to_owned()];
    other.spec.placement = Placement::Tasks;
    books.take_in(Input::Framework(Event::Apply(other)));
    let mut task = waiting("stranger", 21, cpu);
    task.spec.framework = Some("g".to_owned());
    task.spec.queue = Some("p".to_owned());
    task
}

fn elsewhere(verdict: &Verdict) -> Vec<(&str, u64)> {
    verdict.elsewhere.iter().map(|(by, agents)| (by.as_str(), *agents)).collect()
}

#[test]
fn whoever_has_a_reservation_counts_on_it_and_is_told_so() {
    let mut books = books();
    let verdicts = over(&mut books, &[waiting("t", 30, "3")]);
    let [verdict] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!(
        (verdict.agent.as_deref(), &verdict.reservations[..]),
        (Some("a"), &["r".to_owned()][..])
    );
    assert_eq!((verdict.agents, elsewhere(verdict)), (2, vec![("fits", 1)]));
}

#[test]
fn what_is_reserved_for_others_is_not_there() {
    let mut books = books();
    let task = stranger(&mut books, "2");
    let verdicts = over(&mut books, &[task]);
    let [verdict] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!((verdict.agent.as_deref(), verdict.reservations.len()), (Some("b"), 0));
    assert_eq!(elsewhere(verdict), [("cpu", 1)], "three of four cpus are not for it");
}

#[test]
fn what_is_used_of_a_reservation_is_counted_once() {
    let mut books = books();
    let mut user = launched("user", 31, TaskState::Running);
    user.spec.offer = None;
    user.spec.resources = resources("2");
    let part = ReservedPart { reservation: "r".to_owned(), resources: resources("2") };
    user.spec.reserved = vec![part];
    books.take_in(Input::Task(Event::Apply(user)));
    // One cpu is left of the reservation, and one beside it.
    let tasks = [waiting("large", 32, "3"), waiting("small", 33, "2")];
    let verdicts = over(&mut books, &tasks);
    let [large, small] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!((large.agent.as_deref(), large.reservations.len()), (Some("b"), 0));
    assert_eq!(elsewhere(large), [("cpu", 1)]);
    assert_eq!(
        (small.agent.as_deref(), &small.reservations[..]),
        (Some("a"), &["r".to_owned()][..])
    );
}
