import { statSync } from 'node:fs'
import { parseAddress } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import { run } from '../run.ts'
import { textOf } from './items.ts'

/** A line of the firewall's authorized_keys that f2b-setup wrote. */
export interface KeyLine {
  owner: string
  /** Type and base64, without the comment. */
  key: string
  /** The addresses and ranges that the key may come from; empty means anywhere. */
  from: string[]
}

/** Bytes of the longest public key and its comment that anybody has. */
const LARGEST_KEY = 16_384

// No security keys (sk-): they want to be touched, and nobody is there.
const PUBLIC_KEY =
  /^((?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]{40,}={0,3})(?: [ -~]*)?$/
const OUR_LINE =
  /^restrict,(?:from="([^"]*)",)?command="[^\n]*\/gate ([A-Za-z0-9][A-Za-z0-9_.-]*)" (\S+ \S+)/

/**
 * Reads a file that holds exactly one public key.
 *
 * @returns its type and base64; the comment is left behind, since anybody may have written it
 * @throws Failure 65 for anything else, a private key above all
 */
export async function readPublicKey(path: string): Promise<string> {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat) throw badKey(path, 'no such file')
  // A pipe or a device may be read without end.
  if (!stat.isFile()) throw badKey(path, 'it is not a regular file')
  if (stat.size > LARGEST_KEY) throw badKey(path, 'it is too large for a public key')
  const text = textOf(path) ?? ''
  if (/PRIVATE KEY/.test(text)) {
    throw badKey(path, 'it is a private key, which belongs on the server only: give the .pub file')
  }
  const lines = text.replace(/\n$/, '').split('\n')
  if (lines.length !== 1) throw badKey(path, `it has ${lines.length} lines, not one public key`)
  const key = PUBLIC_KEY.exec(lines[0]?.replace(/\r$/, '') ?? '')?.[1]
  if (!key) throw badKey(path, 'it is not a public key of type ssh-ed25519, ecdsa or ssh-rsa')
  await fingerprint(key).catch(() => {
    throw badKey(path, 'ssh-keygen does not accept it')
  })
  return key
}

/** Bits, SHA256 fingerprint, comment (if any) and type, as `ssh-keygen -l` prints them. */
export async function fingerprint(key: string): Promise<string> {
  const { code, stdout, stderr } = await run('ssh-keygen', ['-l', '-f', '-'], { input: `${key}\n` })
  if (code === 127) throw new Failure(EXIT.config, 'Cannot run ssh-keygen: install openssh-client')
  if (code !== 0) throw new Failure(EXIT.input, `Cannot read the key: ${stderr.trim()}`)
  return stdout.trim().replace(' no comment', '')
}

/**
 * Reads `--from`: addresses and ranges, in the form that sshd understands, or `any`.
 *
 * @returns none for `any`, undefined if nothing is given
 * @throws Failure 65
 */
export function readFrom(values: string[]): string[] | undefined {
  if (values.length === 0) return undefined
  if (values.every((value) => value === 'any')) return []
  const texts = new Set(values.map((value) => parseAddress(value).text))
  for (const text of texts) {
    // It would forbid nothing here, and as part of the never-ban list it would forbid every ban.
    if (text.endsWith('/0')) {
      throw new Failure(EXIT.input, `Cannot use ${quote(text)} for --from: it means everybody`)
    }
  }
  return [...texts]
}

/** The lines that f2b-setup wrote; others are skipped. */
export function keyLines(text: string): KeyLine[] {
  return text.split('\n').flatMap((line) => {
    const [, from, owner, key] = OUR_LINE.exec(line) ?? []
    return owner && key ? [{ owner, key, from: from ? from.split(',') : [] }] : []
  })
}

/**
 * The keys file with this owner's line in it, in the place of an older one; everything else stays.
 *
 * @param template remarks and one line with `@FROM@`, `@OWNER@` and `@KEY@`
 * @throws Failure 65 if another owner has that key: the key is what tells the owners apart
 */
export function withKey(text: string | undefined, template: string, line: KeyLine): string {
  const [wanted = '', ...remarks] = template.trimEnd().split('\n').toReversed()
  const lines = (text ?? `${remarks.toReversed().join('\n')}\n`).replace(/\n$/, '').split('\n')
  const other = keyLines(lines.join('\n')).find((l) => l.key === line.key && l.owner !== line.owner)
  if (other) {
    throw new Failure(
      EXIT.input,
      `Cannot add owner "${line.owner}": the key is that of "${other.owner}", and each server needs its own`,
    )
  }
  const made = render(wanted, line)
  const old = lines.findIndex((l) => isOf(l, line.owner))
  if (old < 0) return `${[...lines, made].join('\n')}\n`
  return `${lines.flatMap((l, i) => (i === old ? [made] : isOf(l, line.owner) ? [] : [l])).join('\n')}\n`
}

/** The keys file without this owner's line. */
export function withoutKey(text: string, owner: string): string {
  const lines = text.split('\n')
  return lines.filter((line) => !isOf(line, owner)).join('\n')
}

function isOf(line: string, owner: string): boolean {
  return keyLines(line)[0]?.owner === owner
}

function render(template: string, { owner, key, from }: KeyLine): string {
  const values: Record<string, string> = {
    '@FROM@': from.length > 0 ? `from="${from.join(',')}",` : '',
    '@OWNER@': owner,
    '@KEY@': key,
  }
  return template.replace(/@[A-Z]+@/g, (word) => values[word] ?? word)
}

function badKey(path: string, why: string): Failure {
  return new Failure(EXIT.input, `Cannot use key file ${quote(path)}: ${why}`)
}
