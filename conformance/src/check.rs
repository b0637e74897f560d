//! Checks: every failure names the one that caught it, so that a planted defect can be held to its check.

use serde::{Deserialize, Serialize};

macro_rules! checks {
    ($( $name:ident $text:literal $doc:literal )*) => {
        /// What a case looks at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Check { $( #[doc = $doc] #[serde(rename = $text)] $name, )* }

        impl Check {
            /// Every check, in the order in which a case's failures are told: the most telling first.
            pub const ALL: &'static [Check] = &[$(Check::$name),*];
            /// Its id in reports.
            pub fn id(self) -> &'static str {
                match self { $( Check::$name => $text, )* }
            }
            /// What it means.
            pub fn doc(self) -> &'static str {
                match self { $( Check::$name => $doc, )* }
            }
        }
    };
}

checks! {
    Load "load" "The backend is found, trusted, loaded, and its device opens."
    Crash "crash" "The process outlives the case."
    Timeout "timeout" "The case ends within its time."
    Panic "panic" "No panic leaves the backend's code, and none is caught at its border."
    DeviceLost "device-lost" "The device is not lost."
    Guard "guard" "Bytes before and after a buffer, and in the gaps of a strided output, stay as they were."
    InputModified "input-modified" "Inputs stay as they were."
    Unwritten "unwritten" "Every element of an output is written."
    Stale "stale" "A result depends on this launch's inputs only: not on what the output held, nor on an earlier launch."
    Determinism "determinism" "Equal inputs give equal bits on every run, where the plan promises it."
    InPlace "in-place" "Output 0 may be input 0, where the plan promises it."
    Workspace "workspace" "The plan's workspace size is kept to, and its contents before the launch do not matter."
    SupportLies "support-lies" "What `query` offers can be planned and launched, and what it does not offer cannot."
    RefusalCode "refusal-code" "A refusal carries the code that routes it (UNIMPLEMENTED from query and plan)."
    Untouched "untouched" "A refused call leaves outputs as they were."
    LaunchAllocates "launch-allocates" "A launch takes no memory from the host."
    LaunchSynchronises "launch-synchronises" "A launch returns while its stream still waits."
    Value "value" "Each element is as near to the reference as the operator's numerics ask."
    Error "error" "A valid call succeeds."
    Accepted "accepted" "An invalid call is refused."
    Status "status" "A status is well formed: size, kind, a code that is not OK, a text, a release function; it can be released on any thread."
    ShortStruct "short-struct" "A struct shorter than the callee's is written only up to its size, or refused."
    LongStruct "long-struct" "A longer struct whose tail is zero is accepted, and its tail is left alone."
    NonzeroTail "nonzero-tail" "A non-zero byte beyond the known fields is answered UNSUPPORTED_FIELD."
    Kind "kind" "A struct of another kind is refused."
    UnknownOperator "unknown-operator" "An operator id or revision of the future is answered NO by query and UNIMPLEMENTED by plan."
    UnknownAttribute "unknown-attribute" "An attribute of the future is answered UNIMPLEMENTED, unless it is flagged as a hint."
    UnknownDtype "unknown-dtype" "An element type of the future is not offered."
    NullArgument "null-argument" "A NULL argument is answered INVALID_ARGUMENT."
    HandleWord "handle-word" "The first word of each handle points to its backend's table."
    Purity "purity" "The entry and level-0 queries have no side effects and answer the same every time."
    Capacity "capacity" "No more entries are written than there is room for."
    Tables "tables" "What the backend states of itself agrees with the tables it hands out."
    Shutdown "shutdown" "After shutdown every slot answers FAILED_PRECONDITION, and statuses can still be released."
    Threads "threads" "Threads may use the backend at once, each its own streams."
    Handles "handles" "Handles are independent: closing one leaves the others alone."
    Moved "moved" "The library works from another path, and twice in one process."
    Order "order" "Work of a stream runs in order."
    CrossWait "cross-wait" "A stream that waits for another sees what the other did."
    Timeline "timeline" "An event starts at 0, rises to each value signalled, and never falls."
    Deadline "deadline" "A wait that runs out answers DEADLINE_EXCEEDED."
    Alignment "alignment" "Buffers are aligned as the device states and as was asked."
    Exhaustion "exhaustion" "Too large a request is answered RESOURCE_EXHAUSTED, and smaller ones still work."
    Copy "copy" "A copy moves exactly its bytes."
    Fill "fill" "A fill writes exactly its pattern."
    Transfer "transfer" "What was written to the device is read back."
    Mapping "mapping" "Mapped, addressed, imported and exported memory is the buffer's memory."
    Leak "leak" "What was created and destroyed leaves nothing behind."
    Fork "fork" "A fork of the process leaves the backend usable."
    Property "property" "A property holds for random shapes, strides and attributes."
    UnexpectedPass "unexpected-pass" "A case listed as failing or unsupported does not pass."
    ExpiredException "expired-exception" "No exception has expired."
    Required "required" "Every cell that a profile requires is offered."
}

impl core::fmt::Display for Check {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::Check;

    #[test]
    fn ids_are_unique_and_survive_json() {
        let mut seen = std::collections::HashSet::new();
        for check in Check::ALL {
            assert!(seen.insert(check.id()), "{check} twice");
            let text = serde_json::to_string(check).unwrap();
            assert_eq!(text, format!("\"{}\"", check.id()));
            assert_eq!(serde_json::from_str::<Check>(&text).unwrap(), *check);
        }
    }
}
