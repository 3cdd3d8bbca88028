//! The functions that a rule may call, and for which types: those of the language, of cel-go's
//! extensions that Kubernetes enables, and Kubernetes' own.

use std::collections::HashMap;
use std::rc::Rc;

use super::types::{Bindings, Type};

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Overload {
    /// What the estimate of costs tells apart; empty where nothing depends on it.
    pub(super) id: &'static str,
    pub(super) is_method: bool,
    args: Vec<&'static str>,
    result: &'static str,
}

/// `name`, `.` for a method, arguments, result, and where costs depend on it `#id`. Types that are
/// one capital letter are variables.
const TABLE: &str = "
_?_:_ (bool,A,A) A #conditional
_&&_ (bool,bool) bool #logical_and
_||_ (bool,bool) bool #logical_or
!_ (bool) bool
@not_strictly_false (bool) bool
_==_ (A,A) bool #equals
_!=_ (A,A) bool #equals
-_ (int) int
-_ (double) double
_[_] (list(A),int) A #index_list
_[_] (map(A,B),A) B #index_map
_[_] (optional(list(A)),int) optional(A)
_[_] (optional(map(A,B)),A) optional(B)
_[?_] (list(A),int) optional(A)
_[?_] (optional(list(A)),int) optional(A)
_[?_] (map(A,B),A) optional(B)
_[?_] (optional(map(A,B)),A) optional(B)
@in (A,list(A)) bool #in_list
@in (A,map(A,B)) bool
cel.@mapInsert (map(A,B),map(A,B)) map(A,B)
cel.@mapInsert (map(A,B),A,B) map(A,B)
_+_ (int,int) int
_+_ (uint,uint) uint
_+_ (double,double) double
_+_ (string,string) string #add_string
_+_ (bytes,bytes) bytes #add_string
_+_ (list(A),list(A)) list(A) #add_list
_+_ (duration,duration) duration
_+_ (duration,timestamp) timestamp
_+_ (timestamp,duration) timestamp
_-_ (int,int) int
_-_ (uint,uint) uint
_-_ (double,double) double
_-_ (duration,duration) duration
_-_ (timestamp,duration) timestamp
_-_ (timestamp,timestamp) duration
_*_ (int,int) int
_*_ (uint,uint) uint
_*_ (double,double) double
_/_ (int,int) int
_/_ (uint,uint) uint
_/_ (double,double) double
_%_ (int,int) int
_%_ (uint,uint) uint
size (string) int
size (bytes) int
size (list(A)) int
size (map(A,B)) int
.size (string) int
.size (bytes) int
.size (list(A)) int
.size (map(A,B)) int
type (A) type(A)
dyn (A) dyn
bool (bool) bool
bool (string) bool
bytes (bytes) bytes
bytes (string) bytes #string_to_bytes
double (double) double
double (int) double
double (string) double
double (uint) double
duration (duration) duration
duration (int) duration
duration (string) duration
int (int) int
int (double) int
int (duration) int
int (string) int
int (timestamp) int
int (uint) int
string (string) string
string (bool) string
string (bytes) string #bytes_to_string
string (double) string
string (duration) string
string (int) string
string (timestamp) string
string (uint) string
string (net.IP) string
string (net.CIDR) string
timestamp (timestamp) timestamp
timestamp (int) timestamp
timestamp (string) timestamp
uint (uint) uint
uint (double) uint
uint (int) uint
uint (string) uint
.contains (string,string) bool #contains_string
.startsWith (string,string) bool #starts_with_string
.endsWith (string,string) bool #ends_with_string
matches (string,string) bool #matches
.matches (string,string) bool #matches_string
.getHours (duration) int
.getMinutes (duration) int
.getSeconds (duration) int
.getMilliseconds (duration) int
.charAt (string,int) string
.indexOf (string,string) int
.indexOf (string,string,int) int
.indexOf (list(A),A) int
.lastIndexOf (string,string) int
.lastIndexOf (string,string,int) int
.lastIndexOf (list(A),A) int
.join (list(string)) string
.join (list(string),string) string
.lowerAscii (string) string
.upperAscii (string) string
.trim (string) string
.replace (string,string,string) string
.replace (string,string,string,int) string
.split (string,string) list(string)
.split (string,string,int) list(string)
.substring (string,int) string
.substring (string,int,int) string
.format (string,list(dyn)) string #string_format
strings.quote (string) string #strings_quote
.find (string,string) string
.findAll (string,string) list(string)
.findAll (string,string,int) list(string)
sets.contains (list(A),list(A)) bool
sets.equivalent (list(A),list(A)) bool
sets.intersects (list(A),list(A)) bool
url (string) kubernetes.URL
isURL (string) bool
.getScheme (kubernetes.URL) string
.getHost (kubernetes.URL) string
.getHostname (kubernetes.URL) string
.getPort (kubernetes.URL) string
.getEscapedPath (kubernetes.URL) string
.getQuery (kubernetes.URL) map(string,list(string))
ip (string) net.IP
isIP (string) bool
ip.isCanonical (string) bool
.family (net.IP) int
.isUnspecified (net.IP) bool
.isLoopback (net.IP) bool
.isLinkLocalMulticast (net.IP) bool
.isLinkLocalUnicast (net.IP) bool
.isGlobalUnicast (net.IP) bool
cidr (string) net.CIDR
isCIDR (string) bool
.containsIP (net.CIDR,string) bool #cidr_contains_ip_string
.containsIP (net.CIDR,net.IP) bool
.containsCIDR (net.CIDR,string) bool #cidr_contains_cidr_string
.containsCIDR (net.CIDR,net.CIDR) bool
.ip (net.CIDR) net.IP #cidr_ip
.prefixLength (net.CIDR) int
.masked (net.CIDR) net.CIDR
quantity (string) kubernetes.Quantity
isQuantity (string) bool
.sign (kubernetes.Quantity) int
.isInteger (kubernetes.Quantity) bool
.asInteger (kubernetes.Quantity) int
.asApproximateFloat (kubernetes.Quantity) double
.isGreaterThan (kubernetes.Quantity,kubernetes.Quantity) bool
.isLessThan (kubernetes.Quantity,kubernetes.Quantity) bool
.compareTo (kubernetes.Quantity,kubernetes.Quantity) int
.add (kubernetes.Quantity,kubernetes.Quantity) kubernetes.Quantity
.add (kubernetes.Quantity,int) kubernetes.Quantity
.sub (kubernetes.Quantity,kubernetes.Quantity) kubernetes.Quantity
.sub (kubernetes.Quantity,int) kubernetes.Quantity
semver (string) kubernetes.Semver
semver (string,bool) kubernetes.Semver
isSemver (string) bool
isSemver (string,bool) bool
.major (kubernetes.Semver) int
.minor (kubernetes.Semver) int
.patch (kubernetes.Semver) int
.isGreaterThan (kubernetes.Semver,kubernetes.Semver) bool
.isLessThan (kubernetes.Semver,kubernetes.Semver) bool
.compareTo (kubernetes.Semver,kubernetes.Semver) int
format.named (string) optional(kubernetes.NamedFormat)
.validate (kubernetes.NamedFormat,string) optional(list(string))
optional.none () optional(A)
optional.of (A) optional(A)
optional.ofNonZeroValue (A) optional(A)
.hasValue (optional(A)) bool
.value (optional(A)) A
.or (optional(A),optional(A)) optional(A)
.orValue (optional(A),A) A
optional.unwrap (list(optional(A))) list(A)
.unwrapOpt (list(optional(A))) list(A)
.first (list(A)) optional(A)
.last (list(A)) optional(A)
image (string) kubernetes.Image
isImage (string) bool
.containsDigest (kubernetes.Image) bool
.registry (kubernetes.Image) string
.repository (kubernetes.Image) string
.identifier (kubernetes.Image) string
.tag (kubernetes.Image) string
.digest (kubernetes.Image) string
";

const NAMED_FORMATS: [&str; 13] = [
    "format.dns1123Label",
    "format.dns1123Subdomain",
    "format.dns1035Label",
    "format.qualifiedName",
    "format.dns1123LabelPrefix",
    "format.dns1123SubdomainPrefix",
    "format.dns1035LabelPrefix",
    "format.labelValue",
    "format.uri",
    "format.uuid",
    "format.byte",
    "format.date",
    "format.datetime",
];

/// The ways to call a function of this name; none if there is none.
pub(super) fn of(name: &str) -> Option<Rc<Vec<Overload>>> {
    thread_local! {
        static ALL: HashMap<&'static str, Rc<Vec<Overload>>> = all();
    }
    ALL.with(|all| all.get(name).cloned())
}

fn all() -> HashMap<&'static str, Rc<Vec<Overload>>> {
    let mut functions: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let (Some(name), Some(args), Some(result)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let id = words.next().map_or("", |id| &id[1..]);
        let method = name.strip_prefix('.');
        let overload = Overload { id, is_method: method.is_some(), args: arguments(args), result };
        functions.entry(method.unwrap_or(name)).or_default().push(overload);
    }
    let mut add = |name: &'static str, is_method, args: Vec<&'static str>, result, id| {
        let overload = Overload { id, is_method, args, result };
        functions.entry(name).or_default().push(overload);
    };
    for name in ["_<_", "_<=_", "_>_", "_>=_"] {
        for type_ in ["bool", "timestamp", "duration"] {
            add(name, false, vec![type_, type_], "bool", "");
        }
        for type_ in ["string", "bytes"] {
            add(name, false, vec![type_, type_], "bool", "less_string");
        }
        for left in ["int", "uint", "double"] {
            for right in ["int", "uint", "double"] {
                add(name, false, vec![left, right], "bool", "");
            }
        }
    }
    for name in TIME_PARTS {
        add(name, true, vec!["timestamp"], "int", "");
        add(name, true, vec!["timestamp", "string"], "int", "");
    }
    for (list, item) in COMPARABLE {
        add("isSorted", true, vec![list], "bool", "");
        add("min", true, vec![list], item, "");
        add("max", true, vec![list], item, "");
    }
    for (list, item) in &COMPARABLE[..4] {
        add("sum", true, vec![list], item, "");
    }
    for name in NAMED_FORMATS {
        add(name, false, vec![], "kubernetes.NamedFormat", "");
    }
    functions.into_iter().map(|(name, overloads)| (name, Rc::new(overloads))).collect()
}

const TIME_PARTS: [&str; 10] = [
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

/// Lists whose items have an order; those of the first four can be added up.
const COMPARABLE: [(&str, &str); 8] = [
    ("list(int)", "int"),
    ("list(uint)", "uint"),
    ("list(double)", "double"),
    ("list(duration)", "duration"),
    ("list(timestamp)", "timestamp"),
    ("list(string)", "string"),
    ("list(bytes)", "bytes"),
    ("list(bool)", "bool"),
];

/// `(a,b(c,d))` without the parentheses, in parts.
fn arguments(text: &'static str) -> Vec<&'static str> {
    let text = &text[1..text.len() - 1];
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

impl Overload {
    /// The types of its arguments and of its result, with variables of their own.
    pub(super) fn types(&self, bindings: &mut Bindings) -> (Vec<Type>, Type) {
        let mut variables = HashMap::new();
        let args = self.args.iter().map(|arg| read(arg, bindings, &mut variables)).collect();
        (args, read(self.result, bindings, &mut variables))
    }
}

fn read(
    text: &'static str,
    bindings: &mut Bindings,
    variables: &mut HashMap<&'static str, Type>,
) -> Type {
    if let Some(open) = text.find('(') {
        let parts = arguments(&text[open..]);
        let mut of = |at: usize| read(parts[at], bindings, variables);
        return match &text[..open] {
            "list" => Type::list(of(0)),
            "map" => Type::map(of(0), of(1)),
            "optional" => Type::optional(of(0)),
            _ => Type::AsValue(Rc::new(of(0))),
        };
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "dyn" => Type::Dyn,
        name if name.len() == 1 => {
            variables.entry(name).or_insert_with(|| bindings.fresh()).clone()
        }
        name => Type::Opaque(name),
    }
}
