//! What `GET /_simulator/` says.

use std::fmt;

use super::PREFIX;
use crate::simulator::fault::Fault;

/// How to break the simulator, for a reader at a terminal.
pub(super) struct Guide;

impl fmt::Display for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "GET    {PREFIX}/calls    what each account called")?;
        writeln!(f, "GET    {PREFIX}/faults   the faults that hold")?;
        writeln!(
            f,
            "POST   {PREFIX}/faults   add one: fault=FAULT, several of them act together;"
        )?;
        writeln!(
            f,
            "                            next=N or share=0.2 for some calls only; account=ID, stream=ID"
        )?;
        writeln!(f, "DELETE {PREFIX}/faults   clear them")?;
        writeln!(
            f,
            "GET    {PREFIX}/changes  the records of each stream, and what is to happen to them"
        )?;
        writeln!(
            f,
            "POST   {PREFIX}/changes  change=insert=5, delete=5, update=5, swap=5,900 or reverse: now, or with before=N"
        )?;
        writeln!(
            f,
            "                            just before the Nth call from now; churn=0.2 for so many before each call at random,"
        )?;
        writeln!(
            f,
            "                            kind=insert for only those; account=ID, stream=ID where there are several"
        )?;
        writeln!(
            f,
            "DELETE {PREFIX}/changes  forget what is to happen; the records stay as they are"
        )?;
        writeln!(
            f,
            "GET    {PREFIX}/secrets  how many calls each secret of an account opened"
        )?;
        writeln!(
            f,
            "POST   {PREFIX}/secrets  add=SECRET, which opens the account too, or revoke=SECRET; account=ID where there are"
        )?;
        writeln!(
            f,
            "                            several. From a file: --data-urlencode add@FILE"
        )?;
        writeln!(f, "GET    {PREFIX}/clock    the simulator's clock")?;
        writeln!(
            f,
            "POST   {PREFIX}/clock    offset=-90s: behind by so much; offset=2m: ahead; offset=0s: right again"
        )?;
        writeln!(
            f,
            "\nfor example: curl -X POST 'http://ADDRESS{PREFIX}/faults?fault=status=503&next=5'"
        )?;
        writeln!(
            f,
            "         or: curl http://ADDRESS{PREFIX}/faults -d next=5 --data-urlencode 'fault=status=503;body=a b'"
        )?;
        writeln!(f, "\nfaults:\n{}", fault_guide())
    }
}

/// The table of faults, one on each line.
pub fn fault_guide() -> String {
    let line = |(example, meaning): &(&str, &str)| format!("  {example:<32}{meaning}");
    Fault::GUIDE.iter().map(line).collect::<Vec<_>>().join("\n")
}
