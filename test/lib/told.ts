import { readFileSync, writeFileSync } from 'node:fs'
import { after, before } from 'node:test'
import { temporaryFolder } from './folder.ts'

const TOOLS = ['nft', 'ipset', 'iptables', 'ip6tables', 'iptables-restore', 'ip6tables-restore']

/** The tools of the packet filter, which only write down what they are told. */
export interface Tools {
  /** What they were told while something was done: their command lines, and their input. */
  told(work: () => Promise<unknown>): Promise<string[]>
  /** What they print when they are asked for what there is: `-S`, `list -n`, `save`, `-j`. */
  show(texts: Partial<Record<'rules' | 'sets' | 'saved' | 'table', string>>): void
}

/** Puts stand-ins for all tools first on the PATH, for the tests of this file. */
export function standInTools(): Tools {
  const folder = temporaryFolder('tools')
  const log = `${folder}/log`
  const path = process.env.PATH
  const standIn = `#!/bin/sh
case "$*" in
  *-S) cat ${folder}/rules; exit ;;
  'list -n') cat ${folder}/sets; exit ;;
  save*) cat ${folder}/saved; exit ;;
  '-j list'*) cat ${folder}/table; exit ;;
esac
printf '%s %s\\n' "$(basename "$0")" "$*" >>${log}
cat >>${log}
`
  before(() => {
    for (const tool of TOOLS) writeFileSync(`${folder}/${tool}`, standIn, { mode: 0o755 })
    process.env.PATH = `${folder}:${path}`
  })
  after(() => {
    process.env.PATH = path
  })
  const show: Tools['show'] = (texts) => {
    const all = { rules: '-P INPUT ACCEPT\n', sets: '', saved: '', table: '', ...texts }
    for (const [name, text] of Object.entries(all)) writeFileSync(`${folder}/${name}`, text)
  }
  return {
    show,
    async told(work) {
      writeFileSync(log, '')
      await work()
      return readFileSync(log, 'utf8').split('\n').slice(0, -1)
    },
  }
}
