//! Parses an advertisement. The probe must accept exactly the texts that a service writes.
#![no_main]

mod shared;

use libfuzzer_sys::fuzz_target;
use lifesign::fuzzing;
use shared::assert_request;

fuzz_target!(|text: &str| {
    let Some((endpoint, paths, instance)) = fuzzing::advertised(text) else {
        return;
    };
    let lines = text
        .strip_suffix('\n')
        .expect("the text ends with a line feed");
    let lines: Vec<_> = lines.split('\n').collect();
    let [format, url, ref routes @ .., number] = lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(format, "lifesign 1");
    assert_eq!(fuzzing::endpoint(url), Some((endpoint.clone(), None)));
    assert_eq!(routes, paths);
    assert_eq!(number, instance);

    let again = endpoint.to_string();
    assert_eq!(fuzzing::endpoint(&again), Some((endpoint.clone(), None)));
    for path in paths {
        assert_request(&fuzzing::request(endpoint.clone(), path), Some(path));
    }
    // Writing the parsed endpoint again must give a text that parses to the same endpoint.
    let written = fuzzing::advertise(&endpoint, paths, instance).expect("the endpoint was parsed");
    assert_eq!(
        fuzzing::advertised(&written),
        Some((endpoint, paths, instance))
    );
});
