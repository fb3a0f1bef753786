#!/usr/bin/env node
// Blocks on FortiGates: keeps the list that f2b-fortigate-feed serves as an external threat feed,
// and pushes each change to the device where section "fortigate" says so (FortiOS 7.2.1 and later).
//
//   f2b-fortigate ban --ip 192.0.2.7 --name fortigate --bantime 600
//
// Exit codes: f2b-fortigate --help
import { EXIT, Failure } from './lib/failure.ts'
import { loadFortigate } from './lib/fortigate/settled.ts'
import { fortigateTarget } from './lib/fortigate/target.ts'
import { runSibling } from './lib/verbs.ts'

void runSibling({
  name: 'fortigate',
  command: 'f2b-fortigate',
  about: `Blocks on FortiGates: keeps the list file that f2b-fortigate-feed serves as a
threat feed, and pushes each change to the device if section "fortigate" of the
configuration has "push".

  f2b-fortigate ban --ip 192.0.2.7 --name fortigate --bantime 600
  f2b-fortigate list --device`,
  load: loadFortigate,
  remembers: true,
  options: { device: { type: 'boolean' } },
  optionsHelp: '  --device          list: what the device has, not the file (needs "push")',
  targets({ config, path }, values) {
    if (config.fortigate) return [fortigateTarget(config.fortigate, values.device === true)]
    throw new Failure(EXIT.config, `${path}: missing section "fortigate"`)
  },
})
