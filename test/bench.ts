// Prints, side by side in one run, this project, the document's scripts and the physical floor.
//
//   npm run bench [-- --node /path/to/another/node]...
import { parseArgs } from 'node:util'
import { benchBan } from './bench/ban.ts'
import { benchBulk } from './bench/bulk.ts'
import { printRows } from './bench/table.ts'

const { values } = parseArgs({ options: { node: { type: 'string', multiple: true } } })

for (const node of [process.execPath, ...(values.node ?? [])]) printRows(await benchBan(node))
for (const backend of ['nftables', 'ipset'] as const) printRows(await benchBulk(backend))
