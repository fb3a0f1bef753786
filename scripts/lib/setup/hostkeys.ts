import { createInterface } from 'node:readline/promises'
import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import { run } from '../run.ts'
import type { Firewall } from '../settings/firewalls.ts'
import { say } from './changes.ts'
import { textOf } from './items.ts'
import { fingerprint } from './keys.ts'

const KEY = /^(?:ssh-|ecdsa-|sk-)[A-Za-z0-9@.-]+ [A-Za-z0-9+/]{40,}={0,3}(?= |$)/

/**
 * The host keys of a firewall in a file: a bare public key, or the firewall's entries in a
 * known_hosts (hashed names and patterns as well).
 *
 * @param alone whether it is the only firewall: a bare key does not say whose it is
 * @throws Failure 65 if there is none in it
 */
export async function readHostKeys(
  path: string,
  firewall: Firewall,
  alone: boolean,
): Promise<string[]> {
  const text = textOf(path)
  if (text === undefined) throw new Failure(EXIT.input, `Cannot read ${quote(path)}: no such file`)
  const bare = text.split('\n').flatMap((line) => KEY.exec(line.trim())?.[0] ?? [])
  const names = [firewall.host, `[${firewall.host}]:${firewall.port ?? 22}`]
  const keys = alone && bare.length > 0 ? bare : await findHost(path, names)
  for (const key of keys) await fingerprint(key)
  if (keys.length > 0) return [...new Set(keys)]
  throw new Failure(
    EXIT.input,
    `Cannot find a host key of ${quote(firewall.host)} in ${quote(path)}`,
  )
}

/**
 * Asks the firewall itself for its host keys and a person whether they are the right ones.
 *
 * @throws Failure 69 if it does not answer, 77 if the person says no
 */
export async function fetchHostKeys(firewall: Firewall): Promise<string[]> {
  const keys = await scan(firewall)
  say(`The host keys that ${firewall.host} shows:`)
  for (const key of keys) say(`  ${await fingerprint(key)}`)
  const lines = createInterface({ input: process.stdin, output: process.stdout })
  const answer = await lines
    .question(
      `Is this the fingerprint that \`f2b-setup firewall\` printed on ${firewall.host}? [yes/no] `,
    )
    .finally(() => lines.close())
  if (answer.trim() === 'yes') return keys
  throw new Failure(
    EXIT.refused,
    `Nothing was changed: the host key of "${firewall.host}" was not confirmed`,
  )
}

/** @throws Failure 64 if there is nobody to ask */
export function checkTerminal(firewall: Firewall): void {
  if (process.stdin.isTTY) return
  throw new Failure(
    EXIT.usage,
    `Cannot ask whether the host key of "${firewall.host}" is right, this is no terminal: give --host-key-file`,
  )
}

/** The known_hosts with exactly these keys for a firewall. Our client looks it up by this name. */
export function withHostKeys(text: string, host: string, keys: string[]): string {
  const wanted = keys.map((key) => `${host} ${key}`)
  const lines = text.split('\n').filter((line) => line !== '')
  const others = lines.filter((line) => line.split(' ')[0] !== host)
  const same = lines.length === others.length + wanted.length
  if (same && wanted.every((line) => lines.includes(line))) return text
  return `${[...others, ...wanted].join('\n')}\n`
}

/** True if a known_hosts that we wrote names this firewall. */
export function knowsHost(text: string, host: string): boolean {
  return text.split('\n').some((line) => line.split(' ')[0] === host)
}

async function findHost(path: string, names: string[]): Promise<string[]> {
  const keys: string[] = []
  for (const name of names) {
    const { stdout } = await run('ssh-keygen', ['-F', name, '-f', path])
    for (const line of stdout.split('\n')) {
      // Marked lines (@revoked, @cert-authority) are no host keys, and remarks are ssh-keygen's.
      const key = /^[^@#]\S* (.*)$/.exec(line)?.[1]
      keys.push(...(KEY.exec(key ?? '')?.[0].split('\n') ?? []))
    }
  }
  return keys
}

/** The name may be one of ssh_config, which ssh-keyscan does not read but `ssh -G` does. */
async function scan(firewall: Firewall): Promise<string[]> {
  const port = firewall.port === undefined ? [] : ['-p', String(firewall.port)]
  const { stdout: dump } = await run('ssh', ['-G', ...port, '--', firewall.host])
  const real = (word: string): string | undefined =>
    new RegExp(`^${word} (\\S+)$`, 'm').exec(dump)?.[1]
  const host = real('hostname') ?? firewall.host
  const where = ['-T', '5', '-p', real('port') ?? '22']
  const { stdout } = await run('ssh-keyscan', [...where, '--', host])
  const keys = stdout.split('\n').flatMap((line) => {
    const key = /^[^#]\S* (.*)$/.exec(line)?.[1]
    return KEY.exec(key ?? '')?.[0] ?? []
  })
  if (keys.length > 0) return keys
  throw new Failure(
    EXIT.unreachable,
    `Cannot fetch the host key of "${firewall.host}": ${host} does not answer (--host-key-file does without)`,
  )
}
