import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { readmeBlocks } from './lib/readme.ts'

// Every block that README.md tells somebody to type or to write is run, as written, by a test that
// reads it from there with `blocksOf`.

test('every block of README.md is in a story', () => {
  const tests = readdirSync('test', { recursive: true, encoding: 'utf8' })
  const texts = tests
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(`test/${name}`, 'utf8'))
  const told = readmeBlocks().filter(({ language }) => language !== '')
  const headings = [...new Set(told.map(({ heading }) => heading))]
  const untold = headings.filter(
    (heading) => !texts.some((text) => text.replace(/\s+/g, ' ').match(storyOf(heading))),
  )
  assert.deepEqual(untold, [])
})

function storyOf(heading: string): RegExp {
  return new RegExp(`blocksOf\\( ?'${heading.replace(/[^\w ]/g, '.')}'`)
}
