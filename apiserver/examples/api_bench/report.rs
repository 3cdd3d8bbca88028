//! The table, and the same figures as JSON.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::target::{Cpu, Target};

/// One line of the table.
pub(crate) struct Figure {
    row: &'static str,
    target: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    aim: &'static str,
    kubernetes: &'static str,
    cpu: Option<Cpu>,
    /// Everything else that was seen, by name and unit.
    more: Vec<(&'static str, f64)>,
}

impl Figure {
    pub(crate) fn new(
        row: &'static str,
        target: &Target,
        what: impl Into<String>,
        (value, unit): (f64, &'static str),
    ) -> Figure {
        Figure {
            row,
            target: target.kind.name(),
            what: what.into(),
            value,
            unit,
            aim: "",
            kubernetes: "",
            cpu: None,
            more: Vec::new(),
        }
    }

    /// What is aimed at, and what a kube-apiserver 1.36 reached on two cores.
    pub(crate) fn beside(mut self, aim: &'static str, kubernetes: &'static str) -> Figure {
        (self.aim, self.kubernetes) = (aim, kubernetes);
        self
    }

    /// Processor time of one operation, in microseconds.
    pub(crate) fn cost(mut self, target: &Target, cpu: Cpu) -> Figure {
        self.cpu = target.is_local().then_some(cpu);
        self
    }

    pub(crate) fn and(mut self, name: &'static str, value: f64) -> Figure {
        self.more.push((name, value));
        self
    }

    fn json(&self) -> Value {
        let more: Map<String, Value> =
            self.more.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "row": self.row,
            "target": self.target,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "aim": self.aim,
            "kubernetes": self.kubernetes,
            "serverCpuMicroseconds": self.cpu.map(|cpu| cpu.server),
            "clientCpuMicroseconds": self.cpu.map(|cpu| cpu.client),
            "etcdCpuMicroseconds": self.cpu.filter(|cpu| cpu.etcd > 0.0).map(|cpu| cpu.etcd),
            "more": more,
        })
    }
}

pub(crate) fn print_head() {
    println!(
        "{:<11} {:<8} {:<47} {:>12} {:<8} {:>13} {:>14} {:>9} {:>8} {:>9}  also",
        "row",
        "store",
        "what",
        "value",
        "",
        "aim",
        "kube-apiserver",
        "µs/op",
        "etcd µs",
        "client µs"
    );
}

pub(crate) fn print(figure: &Figure) {
    let time = |value: Option<f64>| value.map_or("–".to_owned(), short);
    let more: Vec<String> =
        figure.more.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
    println!(
        "{:<11} {:<8} {:<47} {:>12} {:<8} {:>13} {:>14} {:>9} {:>8} {:>9}  {}",
        figure.row,
        figure.target,
        figure.what,
        short(figure.value),
        figure.unit,
        figure.aim,
        figure.kubernetes,
        time(figure.cpu.map(|cpu| cpu.server)),
        time(figure.cpu.map(|cpu| cpu.etcd).filter(|us| *us > 0.0)),
        time(figure.cpu.map(|cpu| cpu.client)),
        more.join(", ")
    );
}

/// As many digits as mean something.
fn short(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

pub(crate) fn write(figures: &[Figure], path: &Path) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let all: Vec<Value> = figures.iter().map(Figure::json).collect();
    std::fs::write(path, serde_json::to_vec_pretty(&all)?)?;
    println!("written to {}", path.display());
    Ok(())
}
