// Writes the JSON schemas of config.yaml and firewall.yaml, for editors: `npm run build` calls it.
import { readFileSync, writeFileSync } from 'node:fs'
import { toJsonSchema } from '@valibot/to-json-schema'
import { schema as firewall } from '../../../firewall-side/lib/config.ts'
import { describe, type Schema } from '../bundle/comments.ts'
import { schema } from './schema.ts'

// What only our own functions can check (an address, say) is text to an editor.
const options = { errorMode: 'ignore', typeMode: 'input' } as const
const server = { title: 'fail2ban-perimeter', ...toJsonSchema(schema, options) }
// The host that this was built on is nobody's default.
const owner = server.properties?.owner
if (typeof owner === 'object') delete owner.default
write('config', server, 'config.yaml')
const edge = { title: 'fail2ban-perimeter on the firewall', ...toJsonSchema(firewall, options) }
write('firewall', edge, 'firewall-side/firewall.yaml')

function write(name: string, generated: object, example: string): void {
  describe(readFileSync(example, 'utf8'), generated as Schema)
  writeFileSync(`dist/${name}.schema.json`, `${JSON.stringify(generated, null, 2)}\n`)
}
