import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Tool } from '../../../firewall-side/lib/tool.ts'
import { temporaryFolder } from '../../lib/folder.ts'
import { waitUntil } from '../../lib/wait.ts'

const folder = temporaryFolder('tool')

/** A tool that writes down that it runs, and everything that it is told when its input has ended. */
function makeTool(
  name: string,
  after = '',
): { tool: Tool; told: () => string; runs: () => boolean } {
  const [begun, log] = [join(folder, `${name}.begun`), join(folder, `${name}.told`)]
  const script = `echo >>"$0"; cat >"$1"; echo end >>"$1"; ${after}`
  return {
    tool: new Tool('sh', ['-c', script, begun, log]),
    told: () => (existsSync(log) ? readFileSync(log, 'utf8') : ''),
    runs: () => existsSync(begun),
  }
}

test('a tool that was started waits until it is told what to do, and is started once', async () => {
  const { tool, told, runs } = makeTool('waits')
  tool.start()
  tool.start()
  await waitUntil('it runs', runs)
  assert.equal(told(), '')
  await tool.feed('one\n')
  assert.equal(told(), 'one\nend\n')
})

test('a tool that was not started is started when it is fed, each time anew', async () => {
  const { tool, told } = makeTool('anew')
  await tool.feed('one\n')
  await tool.feed(['two\n', 'three\n'])
  assert.equal(told(), 'two\nthree\nend\n')
})

test('a tool that has nothing to do ends by itself, told nothing', async () => {
  const { tool, told, runs } = makeTool('nothing')
  tool.dismiss()
  assert.ok(!runs())
  tool.start()
  tool.dismiss()
  await waitUntil('it has ended', () => told() === 'end\n')
  await tool.feed('later\n')
  assert.equal(told(), 'later\nend\n')
})

test('a tool that fails is one sentence with 75, whether it was started before or not', async () => {
  const { tool } = makeTool('fails', 'echo "no such set" >&2; echo more >&2; exit 3')
  const failure = { code: 75, message: 'Cannot change the packet filter: sh: no such set' }
  await assert.rejects(tool.feed('one\n'), failure)
  tool.start()
  await assert.rejects(tool.feed('one\n'), failure)
  await assert.rejects(new Tool('no-such-tool', []).feed('one\n'), {
    code: 75,
    message: /not found/,
  })
})
