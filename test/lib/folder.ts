import { mkdtempSync, rmSync } from 'node:fs'
import { after } from 'node:test'

/** An empty folder for the tests of this file; it and all that is in it go after the last of them. */
export function temporaryFolder(name: string): string {
  const folder = mkdtempSync(`/tmp/f2b-${name}-`)
  after(() => rmSync(folder, { recursive: true }))
  return folder
}
