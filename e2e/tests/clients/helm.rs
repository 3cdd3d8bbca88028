//! Helm: the program is `e2e/clients/python/helm_client.py`, the chart `charts/example`.

use commonage_e2e::{Cluster, repository};

use crate::{program, python, says_ok, text};

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls_a_chart_of_our_kinds() {
    let cluster = Cluster::start();
    let chart = repository().join("charts/example");
    says_ok(python(&cluster).arg(program("python/helm_client.py")).arg(text(&chart)));
}
