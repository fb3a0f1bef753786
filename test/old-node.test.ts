import assert from 'node:assert/strict'
import { readFileSync, symlinkSync } from 'node:fs'
import { resolve } from 'node:path'
import { test } from 'node:test'
import { run } from '../scripts/lib/run.ts'
import { temporaryFolder } from './lib/folder.ts'
import { OLD_NODES, oldNode } from './lib/old-nodes.ts'

const { bin } = JSON.parse(readFileSync('package.json', 'utf8')) as { bin: Record<string, string> }

for (const major of OLD_NODES) {
  test(`Node.js ${major} gets one sentence from every command`, async () => {
    const folder = temporaryFolder('old-node')
    for (const [name, file] of Object.entries(bin)) {
      const link = `${folder}/${name}` // as npm puts it on the PATH
      symlinkSync(resolve(file), link)
      const { code, stdout, stderr } = await run(oldNode(major), [link, '--help'])
      const sentence = `^${name}: needs Node\\.js 20\\.19 or newer, this is ${major}\\.\\d+\\.\\d+: .*\\n$`
      assert.deepEqual([code, stdout], [78, ''])
      assert.match(stderr, new RegExp(sentence))
    }
  })
}
