//! How long it takes to learn who asks and whether they may, and how soon certificates end.

use std::time::Duration;

use super::{family, histogram, line};
use crate::histogram::{Bounds, Counted, Histogram};

/// Of durations in microseconds, shown in seconds: these are short.
static SHORT: Bounds = Bounds {
    upper: &[
        1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000,
        2_048_000, 4_096_000, 8_192_000, 16_384_000,
    ],
    per_shown: 1e6,
};

/// Of seconds that a certificate is good for: an hour, a day, a week, a month, a year and between.
static REMAINING: Bounds = Bounds {
    upper: &[
        0, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800, 2_592_000,
        7_776_000, 15_552_000, 31_104_000,
    ],
    per_shown: 1.0,
};

/// By whether the answer was yes.
pub(in crate::http) struct AccessTimes {
    authentication: [Histogram; 2],
    authorization: [Histogram; 2],
    certificates: Histogram,
}

impl Default for AccessTimes {
    fn default() -> AccessTimes {
        let short = || [Histogram::new(&SHORT), Histogram::new(&SHORT)];
        AccessTimes {
            authentication: short(),
            authorization: short(),
            certificates: Histogram::new(&REMAINING),
        }
    }
}

fn us(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

impl AccessTimes {
    pub(in crate::http) fn authenticated(&self, believed: bool, took: Duration) {
        self.authentication[usize::from(believed)].observe(us(took));
    }

    pub(in crate::http) fn authorized(&self, allowed: bool, took: Duration) {
        self.authorization[usize::from(allowed)].observe(us(took));
    }

    /// A client showed a certificate that is good for so long.
    pub(in crate::http) fn certificate(&self, remaining: Duration) {
        self.certificates.observe(remaining.as_secs());
    }

    pub(super) fn render(&self, text: &mut String) {
        let [failed, believed] = self.authentication.each_ref().map(Histogram::counted);
        let of = [("success", &believed), ("failure", &failed)];
        const ATTEMPTS: &str = "authentication_attempts";
        counts(text, ATTEMPTS, "Requests, by whether their caller was believed.", of);
        times(text, "authentication_duration_seconds", "How long it took to find out.", of);
        // As Kubernetes calls it when nobody has said yes.
        let [denied, allowed] = self.authorization.each_ref().map(Histogram::counted);
        let of = [("allowed", &allowed), ("no-opinion", &denied)];
        const DECISIONS: &str = "authorization_attempts_total";
        counts(text, DECISIONS, "Requests, by whether their user may.", of);
        times(text, "authorization_duration_seconds", "How long it took to decide.", of);
        const CERTIFICATES: &str = "apiserver_client_certificate_expiration_seconds";
        let help = "How long the certificates that clients connect with are good for.";
        family(text, CERTIFICATES, "histogram", help);
        histogram(text, CERTIFICATES, &[], &self.certificates.counted());
    }
}

fn counts(text: &mut String, name: &str, help: &str, of: [(&str, &Counted); 2]) {
    family(text, name, "counter", help);
    for (result, counted) in of {
        line(text, name, &[("result", result)], counted.total());
    }
}

fn times(text: &mut String, name: &str, help: &str, of: [(&str, &Counted); 2]) {
    family(text, name, "histogram", help);
    for (result, counted) in of {
        histogram(text, name, &[("result", result)], counted);
    }
}
