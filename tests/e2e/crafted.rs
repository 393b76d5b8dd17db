//! Small plugin files that attack their reader or compiler, made byte by byte.

const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

/// A number as LEB128.
fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 0x7f {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], leb(content.len()), content.to_vec()].concat()
}

/// A component with these sections.
fn component(sections: &[Vec<u8>]) -> Vec<u8> {
    [COMPONENT.to_vec(), sections.concat()].concat()
}

/// A component with a core module of two functions: one returns a number, the other has this body.
fn function(locals: &[u8], body: &[u8]) -> Vec<u8> {
    let one = b"\0\x41\x01\x0b".to_vec();
    let other = [locals, body, b"\x0b"].concat();
    let bodies = [vec![2], leb(one.len()), one, leb(other.len()), other].concat();
    let module = [
        MODULE.to_vec(),
        section(1, b"\x02\x60\x00\x01\x7f\x60\x00\x00"),
        section(3, b"\x02\x00\x01"),
        section(10, &bodies),
    ];
    component(&[section(1, &module.concat())])
}

/// Nested component types: 3 bytes each.
pub fn nested_types(depth: usize) -> Vec<u8> {
    component(&[section(7, &[b"\x01".to_vec(), b"\x41\x01\x01".repeat(depth), b"\x41\x00".to_vec()].concat())])
}

/// Components that instantiate each other `width` times: `width` to the power of `depth` instances, in some hundred bytes.
pub fn multiplied_components(depth: usize, width: usize) -> Vec<u8> {
    let instances = [leb(width), b"\0\0\0".repeat(width)].concat();
    let innermost = component(&[section(1, &MODULE), section(2, &instances)]);
    (0..depth).fold(innermost, |inner, _| component(&[section(4, &inner), section(5, &instances)]))
}

/// Nested loops: 3 bytes each.
pub fn nested_loops(depth: usize) -> Vec<u8> {
    function(b"\0", &[b"\x03\x40".repeat(depth), b"\x0b".repeat(depth)].concat())
}

/// Nested loops in which many variables change, and are read by the outer loops.
pub fn loops_with_variables(depth: usize, variables: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for n in (0..depth).map(|n| leb(n % variables)) {
        body.extend([b"\x03\x40\x20", &n[..], b"\x41\x01\x6a\x21", &n[..]].concat());
    }
    for n in (0..depth).map(|n| leb(n % variables)) {
        body.extend([b"\x20", &n[..], b"\x0d\x00\x0b"].concat());
    }
    function(&[vec![1], leb(variables), vec![0x7f]].concat(), &body)
}

/// Many live values, each the result of a call: 3 bytes each.
pub fn live_ranges(count: usize) -> Vec<u8> {
    let calls = [b"\x10\x00".repeat(count), b"\x6a".repeat(count - 1), b"\x1a".to_vec()];
    function(b"\0", &calls.concat())
}

/// Quick to compile, but to more than `bytes` of code: the initial content of a memory.
pub fn large_data(bytes: usize) -> Vec<u8> {
    let data = [b"\x01\0\x41\0\x0b".to_vec(), leb(bytes), vec![b'x'; bytes]].concat();
    let pages = leb(bytes.div_ceil(1 << 16));
    let module = [MODULE.to_vec(), section(5, &[vec![1, 0], pages].concat()), section(11, &data)];
    component(&[section(1, &module.concat())])
}

/// All files, with a name and the possible texts of the reason: the limit that was reached.
pub fn all() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    const STACK: &[&str] = &["it is nested too deeply"];
    const LIMITS: &[&str] = &["of memory (compiler.memory)", "of processor time (compiler.cpu-time)"];
    vec![
        ("nested_types", nested_types(1_200), STACK),
        ("deeper_types", nested_types(100_000), STACK),
        ("multiplied_components", multiplied_components(10, 4), LIMITS),
        ("wide_components", multiplied_components(4, 60), LIMITS),
        ("nested_loops", nested_loops(300_000), LIMITS),
        ("loops_with_variables", loops_with_variables(60_000, 1_000), LIMITS),
        ("live_ranges", live_ranges(300_000), LIMITS),
    ]
}
