// Writes the JSON schema of config.yaml, for editors: `npm run build` calls it.
import { writeFileSync } from 'node:fs'
import { toJsonSchema } from '@valibot/to-json-schema'
import { schema } from './schema.ts'

// What only our own functions can check (an address, say) is text to an editor.
const options = { errorMode: 'ignore', typeMode: 'input' } as const
const generated = { title: 'fail2ban-perimeter', ...toJsonSchema(schema, options) }
// The host that this was built on is nobody's default.
const owner = generated.properties?.owner
if (typeof owner === 'object') delete owner.default
writeFileSync('dist/config.schema.json', `${JSON.stringify(generated, null, 2)}\n`)
