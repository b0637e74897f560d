//! Any bytes as a manifest are either a valid manifest or one line of refusal that names the file.

use std::path::Path;

use flagos_runtime::discover::manifest::parse;

use crate::random::Random;

const SEEDS: &[&str] = &[
    include_str!("../../../backends/cpu/cpu.json"),
    include_str!("../../../backends/null/null.json"),
    include_str!("../../../backends/example-c/example_c.json"),
    r#"{"format":1,"name":"x","vendor":"y","library":"libx.so","abi":{"major":1,"minor":0},"arch":"x86_64","os":"linux","domains":["op","fft"],
       "needs":{"files":["/dev/x"],"libraries":["libx.so.1"]},"sha256":"00","priority":-1,"claims":"c.json","devices":[{"pci":"10de:*"}]}"#,
];

/// One round.
pub fn round(random: &mut Random) {
    let mut bytes = random.pick(SEEDS).as_bytes().to_vec();
    let other = *random.pick(SEEDS);
    random.mutate(&mut bytes, other.as_bytes());
    match parse(&bytes, Path::new("/m/50-x.json")) {
        Ok(m) => assert!(!m.name.is_empty() && !m.library.as_os_str().is_empty(), "a manifest without a name or library was taken"),
        Err(r) => assert!(r.message.starts_with("/m/50-x.json: ") && !r.message.chars().any(char::is_control), "refusal: {:?}", r.message),
    }
}
